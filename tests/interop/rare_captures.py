"""Captures that prove the dissectors in Python: Debian's own servers and clients on a loopback of their own.

    python -m tests.interop.rare_captures [--install] DIRECTORY [NAME...]

Needs root (a network namespace is made for it and goes with it) and the programs of PACKAGES, which
`--install` fetches.  Each name is one capture: a tcpdump of the namespace's loopback around one talk.
tests/data/probe has what it wrote; tests/interop/test_rare_captures.py makes them anew where it can.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

#: What each capture needs: Debian packages, and the programs by which they are known.
PACKAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ntp": ("ntpsec ntpsec-ntpdig", ("ntpd", "ntpdig")),
    "snmp": ("snmpd snmp", ("snmpd", "snmpget")),
    "redis": ("redis-server redis-tools", ("redis-server", "redis-cli")),
    "postgresql": ("postgresql postgresql-client", ("psql",)),
    "mysql": ("mariadb-server mariadb-client", ("mariadbd", "mariadb")),
    "kerberos": ("krb5-kdc krb5-user krb5-admin-server", ("krb5kdc", "kinit")),
    "ldap": ("slapd ldap-utils", ("slapd", "ldapsearch")),
    "openvpn": ("openvpn openssl", ("openvpn", "openssl")),
    "bittorrent": ("aria2 opentracker", ("aria2c", "opentracker")),
    "rtp": ("ffmpeg", ("ffmpeg",)),
    "sip": ("sip-tester", ("sipp",)),
    "dnp3": ("", ()),
}
#: Where an interpreter that has dnp3-python (bindings of opendnp3) is told.
DNP3_PYTHON = "SEALWIRE_DNP3_PYTHON"
_DNP3 = """
import os, time
from dnp3_python.dnp3station.master import MyMaster
from dnp3_python.dnp3station.outstation import MyOutStation
outstation = MyOutStation()
outstation.start()
time.sleep(1)
master = MyMaster(outstation_ip_str="127.0.0.1")
master.start()
time.sleep(4)
os._exit(0)
"""
HOST = "127.0.0.1"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: A few kilobytes prove a protocol; what is behind them is not kept.
_MOST_BYTES = 12_000
_PATIENCE = 30.0
_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
_ANSWERED = {"capture_output": True, "timeout": _PATIENCE, "stdin": subprocess.DEVNULL}
_CERTIFICATE = [
    "openssl",
    "req",
    "-x509",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
    "-days",
    "2",
    "-subj",
]


def missing(name: str) -> list[str]:
    """The programs of a capture that are not here."""
    if name == "dnp3" and not os.environ.get(DNP3_PYTHON):
        return [f"dnp3-python ({DNP3_PYTHON} names an interpreter that has it)"]
    return [program for program in (*PACKAGES[name][1], "tcpdump") if _found(program) is None]


def _found(program: str) -> str | None:
    return shutil.which(program, path=_PATH)


@contextlib.contextmanager
def serving(*command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs meanwhile, in a process group of its own."""
    process = subprocess.Popen(command, start_new_session=True, **{**_QUIET, **options})
    try:
        yield process
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
                break


def listening(port: int) -> None:
    """Wait until somebody takes connections."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nobody listens on port {port}")


def ask(*command: str, tries: int = 1, **options: Any) -> None:
    """Run a client to its end; again if it fails, as servers take their time."""
    for left in range(tries - 1, -1, -1):
        done = subprocess.run(command, check=False, **{**_ANSWERED, **options})
        if done.returncode == 0:
            return
        if left:
            time.sleep(0.5)
    raise RuntimeError(f"{command[0]}: {done.stderr.decode(errors='replace')[-400:]}")


@contextlib.contextmanager
def recording(to: Path, expression: str) -> Iterator[None]:
    """What goes over the loopback meanwhile."""
    command = ["tcpdump", "-i", "lo", "--immediate-mode", "-U", "-n", "-Z", "root", "-w", str(to), expression]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stderr is not None
        if b"listening" not in process.stderr.readline():
            process.wait()
            raise RuntimeError("tcpdump does not listen")
        try:
            yield
            time.sleep(0.5)
        finally:
            process.send_signal(signal.SIGINT)
            process.stderr.read()
            process.wait()


def own(directory: Path, user: str) -> None:
    """Make a directory a server's own."""
    who = pwd.getpwnam(user)
    os.chown(directory, who.pw_uid, who.pw_gid)


# --- one talk each -------------------------------------------------------------------------------


def ntp(to: Path, work: Path) -> None:
    (work / "ntp.conf").write_text("refclock local stratum 5\nrestrict default\n")
    with serving("ntpd", "-n", "-g", "-c", str(work / "ntp.conf"), "-p", str(work / "pid")):
        time.sleep(2)
        # A server that is not yet sure of its time answers, too, but does not please the client.
        with recording(to, "udp port 123"), contextlib.suppress(RuntimeError):
            ask("ntpdig", HOST, tries=3)


def snmp(to: Path, work: Path) -> None:
    (work / "snmpd.conf").write_text(
        "rocommunity public\ncreateUser tester SHA password1 AES password2\nrouser tester\n"
    )
    with serving(
        "snmpd",
        "-f",
        "-Lo",
        "-C",
        "-c",
        str(work / "snmpd.conf"),
        "-p",
        str(work / "pid"),
        f"udp:{HOST}:161",
        env={**os.environ, "SNMP_PERSISTENT_DIR": str(work)},
    ):
        get = ("snmpget", "-c", "public")
        ask(*get, "-v", "2c", HOST, "1.3.6.1.2.1.1.1.0", tries=20)
        with recording(to, "udp port 161"):
            for version in ("1", "2c"):
                ask(*get, "-v", version, HOST, "1.3.6.1.2.1.1.3.0")
            secret = (
                "-u",
                "tester",
                "-l",
                "authPriv",
                "-a",
                "SHA",
                "-A",
                "password1",
                "-x",
                "AES",
                "-X",
                "password2",
            )
            ask("snmpget", "-v", "3", *secret, HOST, "1.3.6.1.2.1.1.3.0")


def redis(to: Path, work: Path) -> None:
    with serving("redis-server", "--port", "6379", "--save", "", "--dir", str(work)):
        listening(6379)
        with recording(to, "tcp port 6379"):
            ask("redis-cli", "-h", HOST, "set", "answer", "42")
            ask("redis-cli", "-h", HOST, "get", "answer")


def postgresql(to: Path, work: Path) -> None:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    own(work, "postgres")
    work.chmod(0o700)
    data = work / "data"
    options: dict[str, Any] = {"user": "postgres", "cwd": work}
    ask(str(programs / "initdb"), "-D", str(data), "-A", "trust", **options)
    ask(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
        str(data / "server.key"),
        "-out",
        str(data / "server.crt"),
        **options,
    )
    with serving(
        str(programs / "postgres"), "-D", str(data), "-k", str(work), "-h", HOST, "-c", "ssl=on", **options
    ):
        ask("psql", f"host={HOST} user=postgres sslmode=disable", "-c", "select 1", tries=30)
        with recording(to, "tcp port 5432"):
            for mode in ("disable", "require"):
                ask(
                    "psql",
                    f"host={HOST} user=postgres dbname=postgres sslmode={mode} gssencmode=disable",
                    "-c",
                    "select 6 * 7",
                )


def mysql(to: Path, work: Path) -> None:
    own(work, "mysql")
    ask(
        "mariadb-install-db",
        "--no-defaults",
        f"--datadir={work}",
        "--user=mysql",
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    )
    with serving(
        "mariadbd",
        "--no-defaults",
        f"--datadir={work}",
        "--user=mysql",
        f"--socket={work}/s",
        f"--bind-address={HOST}",
        "--port=3306",
        f"--pid-file={work}/pid",
    ):
        listening(3306)
        with recording(to, "tcp port 3306"):
            ask("mariadb", "--no-defaults", "-h", HOST, "-u", "root", "-e", "select 6 * 7")


def kerberos(to: Path, work: Path) -> None:
    (work / "krb5.conf").write_text(
        f"[libdefaults]\ndefault_realm = EXAMPLE.ORG\ndns_lookup_kdc = false\nudp_preference_limit = 1400\n"
        f"[realms]\nEXAMPLE.ORG = {{\nkdc = {HOST}\n}}\n"
    )
    (work / "kdc.conf").write_text(
        f"[realms]\nEXAMPLE.ORG = {{\ndatabase_name = {work}/db\nkey_stash_file = {work}/stash\n"
        f"acl_file = {work}/acl\nkdc_listen = 88\nkdc_tcp_listen = 88\n}}\n"
    )
    environment: dict[str, str] = {
        **os.environ,
        "KRB5_CONFIG": str(work / "krb5.conf"),
        "KRB5_KDC_PROFILE": str(work / "kdc.conf"),
        "KRB5CCNAME": f"FILE:{work}/cc",
    }
    ask("kdb5_util", "create", "-s", "-P", "master", env=environment)
    ask("kadmin.local", "addprinc", "-pw", "password", "tester", env=environment)
    ask("kadmin.local", "addprinc", "-randkey", "host/localhost", env=environment)
    with serving("krb5kdc", "-n", env=environment):
        listening(88)
        with recording(to, "port 88"):
            ask("kinit", "tester", env=environment, input=b"password\n", stdin=None)
            ask("kvno", "host/localhost", env=environment)
            (work / "krb5.conf").write_text((work / "krb5.conf").read_text().replace("1400", "1"))
            ask("kinit", "tester", env=environment, input=b"password\n", stdin=None)


def ldap(to: Path, work: Path) -> None:
    data = work / "data"
    data.mkdir()
    (work / "slapd.conf").write_text(
        "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n"
        f"pidfile {work}/pid\ndatabase mdb\nmaxsize 10485760\nsuffix dc=example,dc=org\n"
        f"rootdn cn=admin,dc=example,dc=org\nrootpw secret\ndirectory {data}\n"
    )
    entry = (
        "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n"
    )
    ask("slapadd", "-f", str(work / "slapd.conf"), input=entry.encode(), stdin=None)
    with serving("slapd", "-d", "0", "-f", str(work / "slapd.conf"), "-h", f"ldap://{HOST}/"):
        listening(389)
        with recording(to, "tcp port 389"):
            search = ("ldapsearch", "-x", "-H", f"ldap://{HOST}/", "-b", "dc=example,dc=org")
            ask(*search)
            ask(*search, "-D", "cn=admin,dc=example,dc=org", "-w", "secret", "(o=Example)")


def openvpn(to: Path, work: Path) -> None:
    for name in ("server", "client"):
        ask(
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-subj",
            f"/CN={name}",
            "-days",
            "2",
            "-keyout",
            str(work / f"{name}.key"),
            "-out",
            str(work / f"{name}.crt"),
        )
    ask("openvpn", "--genkey", "secret", str(work / "ta.key"))
    common = ("openvpn", "--dev", "null", "--ifconfig-noexec", "--auth-nocache", "--verb", "0")

    def side(name: str, other: str, *more: str) -> tuple[str, ...]:
        certificate = ("--cert", str(work / f"{name}.crt"), "--key", str(work / f"{name}.key"))
        return (*common, *certificate, "--ca", str(work / f"{other}.crt"), *more)

    def server(*way: str) -> tuple[str, ...]:
        return side(
            "server", "client", "--tls-server", "--dh", "none", "--port", "1194", "--local", HOST, *way
        )

    def client(*way: str) -> tuple[str, ...]:
        return side("client", "server", "--tls-client", "--remote", HOST, "1194", *way)

    ways = (
        ("--proto", "udp4"),
        ("--proto", "udp4", "--tls-auth", str(work / "ta.key")),
        ("--proto", "udp4", "--tls-crypt", str(work / "ta.key")),
    )
    with recording(to, "port 1194"):
        for way in ways:
            with serving(*server(*way)):
                time.sleep(1)
                with serving(*client("--nobind", *way)):
                    time.sleep(2)
        with serving(*server("--proto", "tcp4-server")):
            time.sleep(1)
            with serving(*client("--proto", "tcp4-client")):
                time.sleep(3)


def bittorrent(to: Path, work: Path) -> None:
    """A seeder, a tracker and a downloader; and the hash tables of both peers."""
    for name in ("seed", "get"):
        (work / name).mkdir()
    content = bytes(range(256)) * 64
    (work / "seed/data").write_bytes(content)
    _torrent(work / "t.torrent", "data", content)
    common = (
        "aria2c",
        "--quiet",
        "--enable-dht6=false",
        "--bt-enable-lpd=false",
        "--seed-ratio=0.0",
        "--disable-ipv6",
        f"--bt-external-ip={HOST}",
        "--check-integrity=true",
        "--no-conf",
    )
    with serving("opentracker", "-i", HOST, "-p", "6969", "-P", "6969", "-d", str(work), "-u", "nobody"):
        time.sleep(1)
        with recording(to, "port 6881 or port 6882"):
            seeder = (
                *common,
                "--listen-port=6881",
                "--dht-listen-port=6881",
                "--enable-dht=true",
                f"--dht-file-path={work}/dht1",
                f"--dht-entry-point={HOST}:6882",
                f"--dir={work}/seed",
            )
            getter = (
                *common,
                "--listen-port=6882",
                "--dht-listen-port=6882",
                "--enable-dht=true",
                f"--dht-file-path={work}/dht2",
                f"--dht-entry-point={HOST}:6881",
                f"--dir={work}/get",
            )
            with serving(*seeder, str(work / "t.torrent")):
                time.sleep(3)
                with serving(*getter, str(work / "t.torrent")):
                    deadline = time.monotonic() + _PATIENCE
                    while not _same(work / "get/data", content):
                        if time.monotonic() > deadline:
                            raise TimeoutError("the file was not downloaded")
                        time.sleep(0.2)


def _same(path: Path, content: bytes) -> bool:
    return path.exists() and path.read_bytes() == content


def _torrent(path: Path, name: str, content: bytes) -> None:
    """A file of one piece, as BEP 3 has it."""
    import hashlib

    pieces = hashlib.sha1(content).digest()
    info = b"d6:lengthi%de4:name%d:%b12:piece lengthi%de6:pieces20:%be" % (
        len(content),
        len(name),
        name.encode(),
        len(content),
        pieces,
    )
    announce = f"http://{HOST}:6969/announce".encode()
    path.write_bytes(b"d8:announce%d:%b4:info%be" % (len(announce), announce, info))


def rtp(to: Path, work: Path) -> None:
    """A tone; its RTP on port 40000, its RTCP on 40001."""
    del work
    with recording(to, "udp portrange 40000-40001"):
        ask(
            "ffmpeg",
            "-nostdin",
            "-re",
            "-f",
            "lavfi",
            "-i",
            "sine=frequency=440:duration=7",
            "-ac",
            "1",
            "-ar",
            "8000",
            "-c:a",
            "pcm_mulaw",
            "-f",
            "rtp",
            f"rtp://{HOST}:40000",
        )


def sip(to: Path, work: Path) -> None:
    with serving("sipp", "-sn", "uas", "-i", HOST, "-p", "5060", "-bg", "-nostdin", cwd=work):
        time.sleep(1)
        with recording(to, "udp port 5060"):
            ask(
                "sipp",
                "-sn",
                "uac",
                f"{HOST}:5060",
                "-i",
                HOST,
                "-p",
                "5061",
                "-m",
                "1",
                "-nostdin",
                cwd=work,
            )


def dnp3(to: Path, work: Path) -> None:
    """opendnp3's outstation and master, from PyPI: Debian has none."""
    del work
    with recording(to, "tcp port 20000"):
        ask(os.environ[DNP3_PYTHON], "-c", _DNP3)


_TALKS = (ntp, snmp, redis, postgresql, mysql, kerberos, ldap, openvpn, bittorrent, rtp, sip, dnp3)
CAPTURES: dict[str, Callable[[Path, Path], None]] = {talk.__name__: talk for talk in _TALKS}


def shortened(path: Path, most: int = _MOST_BYTES) -> None:
    """Keep the first packets of each flow, so many that a file stays small."""
    data = path.read_bytes()
    kept, at = [data[:24]], 24
    seen: dict[bytes, int] = {}
    while at + 16 <= len(data):
        captured = int.from_bytes(data[at + 8 : at + 12], "little")
        frame = data[at + 16 : at + 16 + captured]
        ports = frame[34:38]
        key = min(ports, ports[2:] + ports[:2]) + frame[23:24]
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= 20 and sum(map(len, kept)) + captured <= most:
            kept.append(data[at : at + 16 + captured])
        at += 16 + captured
    path.write_bytes(b"".join(kept))


def make(directory: Path, names: Sequence[str]) -> None:
    """The captures, one after another, in the network of this process."""
    ask("ip", "link", "set", "lo", "up")
    os.environ["PATH"] = _PATH
    for name in names:
        with tempfile.TemporaryDirectory(prefix="sealwire-rare-", ignore_cleanup_errors=True) as work:
            Path(work).chmod(0o755)
            CAPTURES[name](directory / f"{name}.pcap", Path(work))
        shortened(directory / f"{name}.pcap")


def in_namespace(directory: Path, names: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """The same in a network namespace of its own."""
    command = ["unshare", "--net", "--mount", sys.executable, "-m", "tests.interop.rare_captures", "--here"]
    return subprocess.run([*command, str(directory), *names], capture_output=True, check=False, timeout=300)


def main(arguments: Sequence[str]) -> int:
    options = {argument for argument in arguments if argument.startswith("--")}
    directory, *names = (argument for argument in arguments if not argument.startswith("--"))
    chosen = names or [name for name in CAPTURES if name != "dnp3" or os.environ.get(DNP3_PYTHON)]
    if "--here" in options:
        make(Path(directory), chosen)
        return 0
    if "--install" in options:
        packages = sorted({package for name in chosen for package in PACKAGES[name][0].split()} | {"tcpdump"})
        subprocess.run(
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages],
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            check=True,
        )
    failed = 0
    for name in chosen:
        done = in_namespace(Path(directory).absolute(), [name])
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        print(name, "made" if done.returncode == 0 else f"failed: {said}")
        failed += done.returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
