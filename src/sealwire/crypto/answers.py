"""Published answers that a libcrypto must give before the compiled record layer relies on it."""

from __future__ import annotations

from typing import Final

# Published answers: for each algorithm key, nonce, associated data, text, text sealed; then key,
# sample and mask.  GCM: test cases 4 and 16 of McGrew and Viega, "The Galois/Counter Mode of
# Operation"; AES: FIPS 197 appendix C.1 and C.3; ChaCha20: RFC 8439 sections 2.8.2 and 2.3.2; CCM:
# NIST SP 800-38C example 3 has the tag of 8 bytes, Wycheproof's aes_ccm_test tcId 13 the one of 16.
_GCM_NONCE = bytes.fromhex("cafebabefacedbaddecaf888")
_GCM_AAD = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
_GCM_TEXT = bytes.fromhex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
_AES_SAMPLE = bytes.fromhex("00112233445566778899aabbccddeeff")
KNOWN_ANSWERS: Final[
    list[tuple[str, tuple[bytes, bytes, bytes, bytes, bytes], tuple[bytes, bytes, bytes]]]
] = [
    (
        "AES-128-GCM",
        (
            bytes.fromhex("feffe9928665731c6d6a8f9467308308"),
            _GCM_NONCE,
            _GCM_AAD,
            _GCM_TEXT,
            bytes.fromhex(
                "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
                "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091"
                "5bc94fbc3221a5db94fae95ae7121a47"
            ),
        ),
        (bytes(range(16)), _AES_SAMPLE, bytes.fromhex("69c4")),
    ),
    (
        "AES-256-GCM",
        (
            bytes.fromhex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"),
            _GCM_NONCE,
            _GCM_AAD,
            _GCM_TEXT,
            bytes.fromhex(
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
                "76fc6ece0f4e1768cddf8853bb2d551b"
            ),
        ),
        (bytes(range(32)), _AES_SAMPLE, bytes.fromhex("8ea2")),
    ),
    (
        "ChaCha20-Poly1305",
        (
            bytes(range(0x80, 0xA0)),
            bytes.fromhex("070000004041424344454647"),
            bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
            b"future, sunscreen would be it.",
            bytes.fromhex(
                "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6"
                "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36"
                "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc"
                "3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691"
            ),
        ),
        (bytes(range(32)), bytes.fromhex("01000000000000090000004a00000000"), bytes.fromhex("10f1")),
    ),
    (
        "AES-128-CCM",
        (
            bytes.fromhex("d97c9b043bdccfd59491a995e78f1696"),
            bytes.fromhex("ef423240358830df915506a3"),
            bytes.fromhex("3ddba7b3ab69c8b2"),
            bytes.fromhex("f047594a5cffda64303a80b2fa6a957169"),
            bytes.fromhex("e0caf2a9d50f70ecaa43b4a287c3b34a99cff4c61882b413b686ff35b63a3a73de"),
        ),
        (bytes(range(16)), _AES_SAMPLE, bytes.fromhex("69c4")),
    ),
    (
        "AES-128-CCM-8",
        (
            bytes(range(0x40, 0x50)),
            bytes(range(0x10, 0x1C)),
            bytes(range(0x14)),
            bytes(range(0x20, 0x38)),
            bytes.fromhex("e3b201a9f5b71a7a9b1ceaeccd97e70b6176aad9a4428aa5484392fbc1b09951"),
        ),
        (bytes(range(16)), _AES_SAMPLE, bytes.fromhex("69c4")),
    ),
]
