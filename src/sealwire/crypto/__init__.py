"""Names and algorithms: suites, groups, signatures, certificates, Expand-Label, over a provider.

Nothing here computes a cipher, a curve or an ASN.1 structure of its own.  Symmetric and asymmetric
operations come from :mod:`sealwire.crypto.providers` (OpenSSL through ``cryptography`` by default);
this package knows which of them TLS 1.3 and DTLS 1.3 allow, and says no to the rest.
"""
