"""What stands before any connection: every answer the gate has, and what each costs."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealwire.context import Config, Context
from sealwire.crypto.groups import Group
from sealwire.dtls.gate import Answer, Attempt, Gate, OlderVersion, Reply
from sealwire.dtls.header import ContentType, decode_fragments, encode_ack, encode_plaintext, fragment_header
from sealwire.errors import Alert, Discard, HandshakeError
from sealwire.limits import Limits
from sealwire.telemetry import EndpointCounters
from tests import configs
from tests.unit.dtls.hellos import HERE, THERE, Hello, alert_of, body, hello, pieces, record
from tests.unit.dtls.host import Site

COOKIE, VERSIONS = 44, 43


class Judge:
    """A gate with what it asks for."""

    def __init__(
        self, config: Config | None = None, limits: Limits | None = None, require_cookie: bool = True
    ) -> None:
        self.config = config or configs.server_context().config()
        self.counters = EndpointCounters()
        self.gate = Gate(self.config, limits or Limits(), self.counters, require_cookie=require_cookie)

    def ask(self, datagram: bytes, at: tuple[object, ...] = HERE, now: float = 0.0) -> Answer:
        return self.gate.receive(datagram, at, self.config, now)

    def retry(self, datagrams: list[bytes], at: tuple[object, ...] = HERE, now: float = 0.0) -> bytes:
        """The HelloRetryRequest that the last of `datagrams` is answered with."""
        answers = [self.ask(datagram, at, now) for datagram in datagrams]
        assert answers[:-1] == [Discard.INCOMPLETE_HELLO] * (len(datagrams) - 1)
        assert isinstance(answers[-1], Reply)
        return answers[-1].datagram


def post_quantum() -> Config:
    return configs.client_context(key_shares=["X25519MLKEM768", "X25519"]).config()


# --- the paved path ---------------------------------------------------------------------------


@pytest.mark.requirement("9147-5.1-1", "9147-5.1-6", "9147-5.1-7", "9147-5.1-8", "9147-11-1")
def test_a_first_hello_gets_a_small_retry_request_and_nothing_is_kept() -> None:
    judge = Judge()
    one = Hello()
    memory = judge.gate.memory_bytes
    request = judge.retry(one.first)
    assert len(request) <= 3 * len(one.first[0])
    assert len(request) < 200
    assert judge.counters.hello_retry_requests == 1
    # Another gate with the same keys could go on: nothing but the cookie tells of it.
    assert judge.gate.memory_bytes == memory
    assert not judge.gate.slab.holds(decode_fragments(record(one.first[0]).content)[0], HERE)


@pytest.mark.requirement("9147-5.1-8")
def test_the_bytes_of_a_datagram_earn_one_answer_at_most() -> None:
    """The first fragment has them; what stands behind it in the same datagram is worth nothing more."""
    judge = Judge()
    content = body(Hello(configs.client_context(groups=["X25519"]).config()).first)
    part = fragment_header(1, 1_000, 1, 0, 10) + bytes(10)
    whole = fragment_header(1, len(content), 0, 0, len(content)) + content
    both = encode_plaintext(ContentType.HANDSHAKE, 0, part) + encode_plaintext(
        ContentType.HANDSHAKE, 1, whole
    )
    small = encode_plaintext(ContentType.HANDSHAKE, 1, whole)
    assert judge.ask(both) is Discard.OVER_BUDGET
    assert judge.counters.hello_retry_requests == 0
    assert isinstance(judge.ask(small), Reply)


@pytest.mark.requirement("9147-5.1-2", "9147-5.1-4", "9147-5.1-14", "9147-5.2-2")
def test_a_second_hello_with_its_cookie_is_an_attempt() -> None:
    """Decision A9."""
    judge = Judge()
    one = Hello()
    second = one.second(judge.retry(one.first))
    answers = [judge.ask(datagram, HERE, 0.3) for datagram in second]
    attempt = answers[-1]
    assert isinstance(attempt, Attempt)
    assert attempt.address == HERE
    assert attempt.server_name == "localhost"
    assert attempt.message_seq == 1
    assert attempt.received_bytes == sum(map(len, second))
    assert attempt.facts is not None
    assert attempt.facts.group is Group.X25519MLKEM768
    assert attempt.facts.age == pytest.approx(0.3, abs=0.002)
    assert judge.counters.cookies_accepted == 1
    # Our ServerHello's record numbers go on from the client's, so none is that of the retry request.
    assert attempt.plain_sequence > record(judge.retry(one.first)).sequence
    # The retry request is made again from the cookie, to the byte.
    assert attempt.retry_request[4:] in judge.retry([hello(body(one.first))]) or attempt.retry_request


@pytest.mark.requirement("9147-5.1-14", "9147-5.2-1")
def test_the_retry_request_is_made_again_to_the_byte() -> None:
    judge = Judge()
    one = Hello()
    request = judge.retry(one.first)
    [fragment] = decode_fragments(record(request).content)
    answers = [judge.ask(datagram) for datagram in one.second(request)]
    assert isinstance(answers[-1], Attempt)
    assert answers[-1].retry_request == b"\x02" + len(fragment.data).to_bytes(3, "big") + fragment.data


@given(st.integers(0, (1 << 48) - 1))
@pytest.mark.requirement("9147-5.2-2")
def test_a_retry_request_has_the_record_number_of_its_hello(number: int) -> None:
    """Decision A9: it grows with each hello, so it never repeats."""
    judge = JUDGE
    request = judge.retry([hello(FIRST, number=number)])
    assert record(request).sequence == number
    assert decode_fragments(record(request).content)[0].message_seq == 0


JUDGE = Judge()
FIRST = body(Hello().first)


@pytest.mark.requirement("9147-5.1-7", "9147-5.1-8")
def test_without_a_cookie_the_hello_is_an_attempt_whose_address_is_not_proved() -> None:
    judge = Judge(require_cookie=False)
    one = Hello()
    attempt = judge.ask(one.first[0])
    assert isinstance(attempt, Attempt)
    assert attempt.facts is None
    assert attempt.retry_request == b""
    assert attempt.message_seq == 0
    assert attempt.received_bytes == len(one.first[0])


@pytest.mark.requirement("9147-5.1-7")
def test_a_retry_for_a_group_is_stateless_even_where_no_cookie_is_asked_for() -> None:
    judge = Judge(configs.server_context(groups=["secp384r1"]).config(), require_cookie=False)
    one = Hello()
    second = one.second(judge.retry(one.first))
    attempt = judge.ask(second[0])
    assert isinstance(attempt, Attempt)
    assert attempt.facts is not None
    assert attempt.facts.group is Group.SECP384R1


@pytest.mark.requirement("9147-5.1-8")
def test_a_retry_request_is_never_more_than_three_times_its_hello() -> None:
    judge = Judge()
    # The least hello that decodes: still more than a third of the answer.
    minimal = _hello({VERSIONS: b"\x02\xfe\xfc", 10: b"\0\2\0\x1d", 13: b"\0\2\4\3", 51: b"\0\0"})
    answer = judge.ask(hello(minimal))
    assert isinstance(answer, Reply)
    assert len(answer.datagram) <= 3 * len(hello(minimal))


def _hello(
    extensions: dict[int, bytes],
    *,
    legacy_cookie: bytes = b"",
    suites: bytes = b"\x13\x01",
    compression: bytes = b"\0",
) -> bytes:
    block = b"".join(
        code.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
        for code, content in extensions.items()
    )
    return (
        b"\xfe\xfd"
        + bytes(32)
        + b"\0"
        + bytes((len(legacy_cookie),))
        + legacy_cookie
        + len(suites).to_bytes(2, "big")
        + suites
        + bytes((len(compression),))
        + compression
        + len(block).to_bytes(2, "big")
        + block
    )


GOOD = {VERSIONS: b"\x02\xfe\xfc", 10: b"\0\2\0\x1d", 13: b"\0\2\4\3", 51: b"\0\0"}


# --- silence ------------------------------------------------------------------------------------


@pytest.mark.requirement("9147-4.5.2-4", "9147-4.5.2-1")
def test_no_prefix_of_a_hello_is_answered() -> None:
    judge = Judge()
    datagram = Hello().first[0]
    for n in range(1, len(datagram)):
        assert isinstance(judge.ask(datagram[:n]), Discard)
    # Neither one whose record is cut with it, so that its last fragment ends early.
    # (One that ends where extensions could begin is a hello of old, which had none.)
    no_extensions = len(_hello({})) - 2 - 2 + len(Hello().client.config.suites) * 2
    for n in range(len(FIRST)):
        answer = judge.ask(hello(FIRST[:n]), THERE, n * 10.0)
        if n == no_extensions:
            assert isinstance(answer, OlderVersion)
        else:
            assert answer is Discard.MALFORMED_HELLO, n
    assert judge.counters.hello_retry_requests == 0


@given(st.binary(min_size=1, max_size=120))
@pytest.mark.requirement("9147-4.5.2-4")
def test_any_bytes_are_silence(data: bytes) -> None:
    assert isinstance(JUDGE.ask(data), Discard)
    assert isinstance(JUDGE.ask(hello(data)), Discard)


@pytest.mark.requirement("9147-4.5.2-4")
def test_every_changed_byte_is_silence_an_alert_or_a_retry_no_larger_than_allowed() -> None:
    judge = Judge()
    datagram = Hello().first[0]
    chance = random.Random(3)
    for at in range(len(datagram)):
        changed = bytearray(datagram)
        changed[at] ^= chance.randrange(1, 256)
        answer = judge.ask(bytes(changed), HERE, at * 5.0)
        if isinstance(answer, OlderVersion):
            answer = answer.reply
        if isinstance(answer, Reply):
            assert len(answer.datagram) <= 3 * len(datagram)
            if answer.datagram[0] == ContentType.ALERT:
                assert len(answer.datagram) == 15
        else:
            assert isinstance(answer, Discard)


@pytest.mark.requirement("9147-4.5.2-4", "9147-7-10", "9147-4.1-1")
@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (encode_plaintext(ContentType.ALERT, 0, b"\x02\x28"), Discard.UNKNOWN_PEER),
        (encode_plaintext(ContentType.ACK, 0, encode_ack([])), Discard.UNKNOWN_PEER),
        (
            encode_plaintext(ContentType.HANDSHAKE, 0, fragment_header(2, 1, 0, 0, 1) + b"x"),
            Discard.UNKNOWN_PEER,
        ),
        (hello(FIRST, seq=2), Discard.UNKNOWN_PEER),
        (hello(FIRST, seq=1), Discard.MALFORMED_HELLO),
        (hello(b""), Discard.MALFORMED_HELLO),
        (encode_plaintext(ContentType.HANDSHAKE, 0, b""), Discard.BAD_FRAGMENT),
        (encode_plaintext(ContentType.HANDSHAKE, 0, bytes(11)), Discard.BAD_FRAGMENT),
        (hello(FIRST)[:-1], Discard.TRUNCATED_RECORD),
        (b"\x17\xfe\xfd" + bytes(8) + b"\0\1x", Discard.NOT_DTLS),
        (hello(FIRST + b"\0"), Discard.MALFORMED_HELLO),
    ],
)
def test_what_is_no_hello_is_silence(datagram: bytes, reason: Discard) -> None:
    assert Judge().ask(datagram) is reason


# --- alerts -------------------------------------------------------------------------------------


@pytest.mark.requirement("9147-5.3-7", "9147-4.5.2-3", "9147-5.10-2", "8446-NEG-3")
@pytest.mark.parametrize(
    ("content", "alert"),
    [
        (_hello(GOOD, legacy_cookie=b"old"), Alert.ILLEGAL_PARAMETER),
        (_hello(GOOD, compression=b"\1\0"), Alert.ILLEGAL_PARAMETER),
        (_hello(GOOD, suites=b"\x13\x05"), Alert.HANDSHAKE_FAILURE),
        (_hello({**GOOD, 10: b"\0\2\x01\x00"}), Alert.HANDSHAKE_FAILURE),
        (_hello({VERSIONS: GOOD[VERSIONS], 10: GOOD[10], 13: GOOD[13]}), Alert.MISSING_EXTENSION),
        (_hello({VERSIONS: GOOD[VERSIONS], 13: GOOD[13], 51: GOOD[51]}), Alert.MISSING_EXTENSION),
    ],
)
def test_a_hello_we_cannot_serve_gets_one_small_alert(content: bytes, alert: Alert) -> None:
    judge = Judge()
    for number in (7, 8):
        answer = judge.ask(hello(content, number=number))
        assert isinstance(answer, Reply)
        assert alert_of(answer.datagram) == alert
        assert len(answer.datagram) < len(hello(content))
        assert record(answer.datagram).sequence == number


@pytest.mark.requirement("9147-5.2-6", "9147-5.3-2")
@pytest.mark.parametrize("versions", [b"\x02\xfe\xfd", b"\x04\xfe\xfd\xfe\xff", None, b"\x02\x03\x04"])
def test_a_hello_of_older_versions_is_told_so(versions: bytes | None) -> None:
    extensions = {**GOOD, VERSIONS: versions}
    content = _hello({code: one for code, one in extensions.items() if one is not None})
    answer = Judge().ask(hello(content))
    assert isinstance(answer, OlderVersion)
    assert isinstance(answer.reply, Reply)
    assert alert_of(answer.reply.datagram) == Alert.PROTOCOL_VERSION


@pytest.mark.requirement("9147-5.10-2", "9147-4.5.2-4")
def test_alerts_to_strangers_are_counted_by_the_second() -> None:
    judge = Judge()
    bad = hello(_hello(GOOD, legacy_cookie=b"old"))
    answers = [judge.ask(bad, ("192.0.2.7", n), 100.0 + n / 1000) for n in range(900)]
    replies = [answer for answer in answers if isinstance(answer, Reply)]
    assert len(replies) == 100
    assert set(answers[100:]) == {Discard.MALFORMED_HELLO}
    assert isinstance(judge.ask(bad, HERE, 101.0), Reply)
    # Retry requests are no alerts.
    judge.retry(Hello().first, HERE, 101.0)


# --- cookies that are not good -------------------------------------------------------------------


@pytest.mark.requirement("9147-5.1-11", "9147-11-2", "9147-11-3", "9147-5.1-10")
@pytest.mark.parametrize("how", ["elsewhere", "expired", "flipped", "cut", "other process", "first hello"])
def test_a_bad_cookie_is_told_in_one_alert(how: str) -> None:
    """Decision A7."""
    judge = Judge(configs.server_context(groups=["X25519"]).config())
    one = Hello()
    request = judge.retry(one.first)
    [second] = one.second(request)
    at, now, content = HERE, 0.0, body([second])
    seq = 1
    cookie_at = content.index(_cookie(content))
    if how == "elsewhere":
        at = THERE
    elif how == "expired":
        now = Limits().cookie_seconds + 0.1
    elif how == "flipped":
        content = (
            content[: cookie_at + 20] + bytes((content[cookie_at + 20] ^ 1,)) + content[cookie_at + 21 :]
        )
    elif how == "cut":
        content = _hello({**GOOD, COOKIE: b"\0\1x"})
    elif how == "other process":
        judge = Judge(configs.server_context(groups=["X25519"]).config())
    else:
        seq = 0
    answer = judge.ask(hello(content, seq=seq, number=5), at, now)
    assert isinstance(answer, Reply)
    assert alert_of(answer.datagram) == Alert.ILLEGAL_PARAMETER
    assert judge.counters.cookies_refused == 1
    assert judge.counters.cookies_accepted == 0


def _cookie(content: bytes) -> bytes:
    at = content.index(b"\x00\x2c\x00")
    n = int.from_bytes(content[at + 4 : at + 6], "big")
    return content[at + 6 : at + 6 + n]


# --- split hellos -------------------------------------------------------------------------------


@given(st.integers(150, 1100), st.randoms(use_true_random=False))
@pytest.mark.requirement("9147-5.5-4", "9147-5.1-2")
def test_split_hellos_of_any_size_in_any_order(size: int, chance: random.Random) -> None:
    """Decision A10: both hellos, the first a post-quantum one, the second with its cookie."""
    judge = JUDGE
    one = Hello(post_quantum())
    first = pieces(body(one.first), size)
    if len(first) > 8:
        return
    order = first[:]
    chance.shuffle(order)
    request = judge.retry(order)
    second = pieces(body(one.second(request)), size, seq=1, number=20)
    chance.shuffle(second)
    answers = [judge.ask(datagram) for datagram in second]
    assert answers[:-1] == [Discard.INCOMPLETE_HELLO] * (len(second) - 1)
    assert isinstance(answers[-1], Attempt)
    assert answers[-1].facts is not None


@pytest.mark.requirement("9147-5.1-8", "9147-4.5.2-4", "9147-7-10")
def test_nothing_answers_an_incomplete_hello() -> None:
    """Decision A10: no ACK, no alert, no retry request, however often a part comes."""
    judge = Judge()
    one = Hello(post_quantum())
    parts = pieces(body(one.first), 500)
    for turn in range(50):
        for part in parts[:-1]:
            assert judge.ask(part, HERE, turn / 20) is Discard.INCOMPLETE_HELLO
    answer = judge.ask(parts[-1], HERE, 2.6)
    assert isinstance(answer, Reply)
    assert record(answer.datagram).content_type == ContentType.HANDSHAKE


@pytest.mark.requirement("9147-5.5-4")
def test_our_client_shows_its_cookie_in_the_first_fragment() -> None:
    judge = Judge()
    one = Hello(mtu=600)
    second = one.second(judge.retry(one.first))
    assert len(second) > 1
    first = decode_fragments(record(second[0]).content)[0]
    assert first.offset == 0
    assert b"\x00\x2c\x00" in first.data


@pytest.mark.requirement("9147-11-4")
def test_a_flood_does_not_reach_hellos_whose_address_is_proved() -> None:
    limits = Limits(hello_slots=64, hello_slot_seconds=0.5)
    judge = Judge(limits=limits)
    ones = [Hello(mtu=600) for _ in range(4)]
    addresses = [("192.0.2.50", n) for n in range(4)]
    seconds = [one.second(judge.retry(one.first, at)) for one, at in zip(ones, addresses, strict=True)]
    for second, at in zip(seconds, addresses, strict=True):
        # The last fragment came first, then the one with the cookie, then the flood.
        assert judge.ask(second[-1], at) is Discard.INCOMPLETE_HELLO
        assert judge.ask(second[0], at) is Discard.INCOMPLETE_HELLO
    junk = pieces(bytes(2000), 500)
    chance = random.Random(1)
    for n in range(5000):
        judge.ask(chance.choice(junk), ("198.51.100.1", n), 0.1 + n / 1000)
    for second, at in zip(seconds, addresses, strict=True):
        answers = [judge.ask(datagram, at, 5.2) for datagram in second[1:-1]]
        assert isinstance(answers[-1], Attempt), at


@pytest.mark.requirement("9147-11-4", "9147-5.5-3")
def test_memory_of_the_gate_is_fixed() -> None:
    judge = Judge(limits=Limits(hello_slots=64))
    before = judge.gate.memory_bytes
    assert before - judge.gate.strangers.memory_bytes < 64 * 2 * 5000
    junk = pieces(bytes(4000), 900)
    for n in range(2000):
        judge.ask(junk[n % len(junk)], ("198.51.100.1", n), n / 100)
    assert judge.gate.memory_bytes == before


@pytest.mark.requirement("9147-4.3-3", "9147-5.5-8")
def test_fragments_that_share_a_datagram() -> None:
    """A client that retries with a smaller size may pack two records, or two fragments of one record."""
    content = body(Hello(post_quantum()).first)
    parts = pieces(content, 400)
    judge = Judge()
    assert judge.ask(b"".join(parts[:-1])) is Discard.INCOMPLETE_HELLO
    assert isinstance(judge.ask(parts[-1]), Reply)
    # All fragments of one hello cannot be worth less than three times its bytes.
    one = judge.ask(b"".join(parts), ("192.0.2.3", 1))
    assert isinstance(one, Reply)
    assert len(one.datagram) <= 3 * sum(map(len, parts))
    together = b"".join(record(part).content for part in parts)
    answer = judge.ask(encode_plaintext(ContentType.HANDSHAKE, 9, together), THERE)
    assert isinstance(answer, Reply)
    assert record(answer.datagram).sequence == 9


@pytest.mark.requirement("9147-11-4")
def test_a_datagram_of_tiny_fragments_costs_no_more_than_a_few() -> None:
    judge = Judge()
    content = body(Hello().first)
    tiny = pieces(content, 1)[:40]
    assert judge.ask(b"".join(tiny)) is Discard.INCOMPLETE_HELLO
    [slot] = [n for n, stamp in enumerate(judge.gate.slab.stamp) if stamp == 0.0]
    assert judge.gate.slab._ranges_of(slot) == [(0, 8)]


# --- names ------------------------------------------------------------------------------------


def named(**suites: str) -> Config:
    """A server whose contexts by name allow one suite each; other names are unknown."""
    contexts = {name: configs.server_context(suites=[suite]) for name, suite in suites.items()}
    base = configs.server_context(suites=["TLS_AES_256_GCM_SHA384"])

    def choose(name: str | None, context: Context) -> Context:
        if name not in contexts:
            raise HandshakeError(Alert.UNRECOGNIZED_NAME, f"nobody is called {name}")
        return contexts[name]

    base.sni_callback = choose
    return base.config()


@pytest.mark.parametrize("require_cookie", [True, False])
@pytest.mark.parametrize("suite", ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256"])
def test_the_suite_is_one_of_the_context_that_the_name_leads_to(suite: str, require_cookie: bool) -> None:
    """The retry request names the suite, so the callback is asked before the address is proved."""
    site = Site(server=named(localhost=suite), require_cookie=require_cookie, limit_unproved=False)
    client, server = site.connect()
    assert client.session.suite.name == server.session.suite.name == suite


def test_a_name_nobody_has_is_refused_at_the_gate() -> None:
    judge = Judge(named(elsewhere="TLS_AES_128_GCM_SHA256"))
    answers = [judge.ask(datagram) for datagram in Hello().first]
    assert isinstance(answers[-1], Reply)
    assert alert_of(answers[-1].datagram) == Alert.UNRECOGNIZED_NAME
    assert judge.counters.hello_retry_requests == 0


def test_a_callback_that_fails_costs_one_alert() -> None:
    context = configs.server_context()

    def fail(name: str | None, context: Context) -> Context:
        raise RuntimeError("no")

    context.sni_callback = fail
    judge = Judge(context.config())
    answers = [judge.ask(datagram) for datagram in Hello().first]
    assert isinstance(answers[-1], Reply)
    assert alert_of(answers[-1].datagram) == Alert.INTERNAL_ERROR
