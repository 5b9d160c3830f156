"""`sealwire --version`: which sealwire, which path through it, which OpenSSLs, which Python."""

from __future__ import annotations

import argparse
import platform
import ssl
import sys

import cryptography
from cryptography.hazmat.backends.openssl import backend

import sealwire
from sealwire.cli.say import Exit, Say
from sealwire.probe import engine as probe
from sealwire.record import protect


def run(args: argparse.Namespace, say: Say) -> Exit:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    say.fact(
        "version",
        f"sealwire {sealwire.__version__}\n"
        f"record protection: {protect.describe()}\n"
        f"flow table of the probe: {probe.describe()}\n"
        f"{python} at {sys.executable}\n"
        f"OpenSSL of the interpreter: {ssl.OPENSSL_VERSION}\n"
        f"OpenSSL of cryptography {cryptography.__version__}: {backend.openssl_version_text()}",
        version=sealwire.__version__,
        compiled=protect.COMPILED,
        record_protection=protect.describe(),
        flow_table=probe.describe(),
        python=python,
        executable=sys.executable,
        openssl_interpreter=ssl.OPENSSL_VERSION,
        cryptography=cryptography.__version__,
        openssl_cryptography=backend.openssl_version_text(),
    )
    return Exit.OK
