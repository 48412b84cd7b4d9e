"""Who may talk to a cluster: whoever holds the certificate that was made for it.

Scheduler, workers and client of a cluster share one certificate with its key. Each of them accepts no peer without it,
so on a machine that others use, too, nobody else can give a worker work, whichever port he finds. It is the cluster's
only secret, and ends with it.
"""

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed import Security

_VALID = datetime.timedelta(days=365)
_CLOCKS_DIFFER = datetime.timedelta(days=1)


def make_certificate() -> bytes:
    """Return a new certificate, signed by itself, and its key: both as PEM, one after the other."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nightbeam cluster")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def hidden_certificate() -> int:
    """Return the descriptor of a new certificate in memory that only this process and its children can open.

    No file that a killed process would leave behind, and none that needs room on a disk.
    """
    descriptor = os.memfd_create("nightbeam certificate")
    os.write(descriptor, make_certificate())
    return descriptor


def path_of(descriptor: int) -> Path:
    """Return the path at which the process that has a descriptor finds its file."""
    return Path(f"/proc/self/fd/{descriptor}")


def security(certificate: Path) -> Security:
    """Return what scheduler, worker or client need to speak with those who hold a certificate, and with nobody else.

    Parameters
    ----------
    certificate
        File with certificate and key.
    """
    file = str(certificate)
    return Security(  # type: ignore[no-untyped-call]
        require_encryption=True,
        tls_ca_file=file,
        tls_client_cert=file, tls_client_key=file,
        tls_scheduler_cert=file, tls_scheduler_key=file,
        tls_worker_cert=file, tls_worker_key=file,
    )  # fmt: skip
