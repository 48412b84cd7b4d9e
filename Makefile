# make run    sets everything up, runs the main job, prints where the reports are
# make test   sets everything up, passes all tests
# make validate     compares with other programs (Debian's dicom3tools and plastimatch, where installed) and runs what takes minutes
# make test-cluster  as root, on Debian or Ubuntu: passes the tests that need SLURM or PostgreSQL, which it installs and starts
# make test-chaos    the same: plans on SLURM while jobs and processes are cancelled, killed, stopped and requeued (hours)
# make test-faults   kills processes at random moments, 200 times, and looks whether anything is lost (25 minutes)
PYTHON ?= python3
RUN = runs/tg119_cshape
BIN = .venv/bin

.PHONY: run test test-cluster test-chaos validate test-faults lint clean bench

run: .venv/ready
	$(BIN)/nightbeam plan examples/tg119_cshape.toml
	$(BIN)/nightbeam pareto examples/tg119_cshape.toml
	@echo "plan report:  $(CURDIR)/$(RUN)/report.html"
	@echo "front report: $(CURDIR)/$(RUN)/front.html"

# Several processes; the tests of a file stay together, because they share what takes long to make.
SIDE_BY_SIDE = --dist loadfile --no-loadscope-reorder --durations=25
test: .venv/ready
	$(BIN)/python -m pytest -n 2 $(SIDE_BY_SIDE)

# What Debian's packages cannot be had for is skipped, with the reason; NIGHTBEAM_SITE_TESTS=required has it fail.
test-cluster: .venv/ready
	$(BIN)/python -m pytest -m site -v -n 3 $(SIDE_BY_SIDE) -o faulthandler_timeout=0 tests/cluster

# NIGHTBEAM_CHAOS_RUNS and NIGHTBEAM_CHAOS_SEED choose how many runs, and what happens to them.
test-chaos: .venv/ready
	mkdir -p runs/chaos
	NIGHTBEAM_CHAOS_SUMMARY=runs/chaos NIGHTBEAM_CHAOS_LOG=runs/chaos/events.log \
	    $(BIN)/python -m pytest -m chaos -o faulthandler_timeout=0 tests/chaos

# NIGHTBEAM_FAULT_KILLS and NIGHTBEAM_FAULT_SEED choose how many kills, and which random moments.
test-faults: .venv/ready
	mkdir -p runs
	NIGHTBEAM_FAULT_SUMMARY=runs/faults.md $(BIN)/python -m pytest -m faults -o faulthandler_timeout=0 tests/faults

validate: .venv/ready
	$(BIN)/python -m pytest -m validate tests/validation tests/e2e

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/ready
	$(BIN)/python -m benchmarks.tg119_matrix
	$(BIN)/python -m benchmarks.tg119_plans
	$(BIN)/python -m benchmarks.tg119_plans --dose-grid 3
	$(BIN)/python -m benchmarks.large_matrix
	$(BIN)/python -m benchmarks.scenarios_and_workers
	$(BIN)/python -m benchmarks.profile_main_job examples/tg119_cshape.toml
	$(BIN)/python -m benchmarks.certified_gap

# The environment is made anew whenever the lock file changes. The lock names everything, so pip resolves nothing: the
# resolver of older ones takes newer versions than the pinned ones for requirements with extras.
.venv/ready: requirements.lock pyproject.toml
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch .venv/ready

clean:
	rm -rf .venv runs
