"""Words that are spelt almost alike."""

from collections.abc import Iterable

_LONG = 9


def distance(one: str, other: str) -> int:
    """Return how many letters have to be added, left out, changed, or swapped with their neighbour.

    The optimal string alignment distance: no letter is edited twice (Boytsov, ACM J. Exp. Algorithmics 16 (2011) 1.1).
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, start=1):
        row = [i]
        for j, b in enumerate(other, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]


def nearest(word: str, known: Iterable[str]) -> list[str]:
    """Return the known words with the fewest wrong letters: one at most, two in words of nine letters and more.

    The first letter has to be right: the axilla is not a maxilla. A plural is another word: a breast is not the
    breasts. So is a word with more letters behind it: they may be somebody's initials, or a second organ's.
    """
    allowed = 2 if len(word) >= _LONG else 1
    by_distance: dict[int, list[str]] = {}
    for candidate in known:
        if word.startswith(candidate) or f"{word}s" == candidate:
            continue
        if candidate[0] == word[0] and abs(len(candidate) - len(word)) <= allowed:
            by_distance.setdefault(distance(word, candidate), []).append(candidate)
    closest = min(by_distance, default=allowed + 1)
    return by_distance[closest] if closest <= allowed else []
