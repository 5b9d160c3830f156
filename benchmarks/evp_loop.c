/* The bare loop that record_vs_evp.py measures beside the record layer: the same calls of libcrypto,
   in the same order and as seldom, with nothing around them.  Built by that program; needs a C
   compiler, no headers of OpenSSL and no library at link time: functions come as pointers. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct evp {
    int (*encrypt_init)(void *, void *, const uint8_t *, const uint8_t *, const void *);
    int (*encrypt_update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*encrypt_final)(void *, uint8_t *, int *);
    int (*decrypt_init)(void *, void *, const uint8_t *, const uint8_t *, const void *);
    int (*decrypt_update)(void *, uint8_t *, int *, const uint8_t *, int);
    int (*decrypt_final)(void *, uint8_t *, int *);
    int (*set_params)(void *, const void *);
    int (*get_params)(void *, void *);
};

/* core.h: OSSL_PARAM; 5 says bytes. */
struct param {
    const char *key;
    unsigned kind;
    void *data;
    size_t size, written;
};

enum { HEADER = 5, TAG = 16, SAMPLE = 16, MOST = 64 };

static void next_nonce(uint8_t *nonce)
{
    if (++nonce[11] == 0)
        ++nonce[10];
}

/* `count` records (at most 64) of n bytes of content and type, one behind the other in `in`, to
   header, ciphertext and tag in `out`; 1 for success. */
int seal_loop(const struct evp *evp, void *aead, void *ecb, const uint8_t *in, int n, int count, uint8_t *out)
{
    uint8_t nonce[12] = {0}, samples[MOST * SAMPLE], masks[MOST * SAMPLE];
    uint8_t *record = out;
    int done, good = 1;
    for (int i = 0; i < count; i++) {
        next_nonce(nonce);
        memcpy(record, "\x2f\0\0\0\0", HEADER);
        struct param iv[2] = {{"tlsivfixed", 5, nonce, (size_t)-1, 0}, {0}};
        struct param tag[2] = {{"tag", 5, record + HEADER + n, TAG, 0}, {0}};
        good &= evp->set_params(aead, iv) > 0;
        good &= evp->encrypt_update(aead, 0, &done, record, HEADER) > 0;
        good &= evp->encrypt_update(aead, record + HEADER, &done, in, n) > 0;
        good &= evp->encrypt_final(aead, record + HEADER + n, &done) > 0;
        good &= evp->get_params(aead, tag) > 0;
        memcpy(samples + i * SAMPLE, record + HEADER, SAMPLE);
        in += n;
        record += HEADER + n + TAG;
    }
    good &= evp->encrypt_update(ecb, masks, &done, samples, count * SAMPLE) > 0;
    for (int i = 0; i < count; i++) {
        out[i * (HEADER + n + TAG) + 1] ^= masks[i * SAMPLE];
        out[i * (HEADER + n + TAG) + 2] ^= masks[i * SAMPLE + 1];
    }
    return good;
}

/* The way back: what seal_loop() wrote at `in`, to content and type in `out`. */
int open_loop(const struct evp *evp, void *aead, void *ecb, const uint8_t *in, int n, int count, uint8_t *out)
{
    uint8_t nonce[12] = {0}, header[HEADER], samples[MOST * SAMPLE], masks[MOST * SAMPLE];
    int done, good = 1;
    for (int i = 0; i < count; i++)
        memcpy(samples + i * SAMPLE, in + i * (HEADER + n + TAG) + HEADER, SAMPLE);
    good &= evp->encrypt_update(ecb, masks, &done, samples, count * SAMPLE) > 0;
    for (int i = 0; i < count; i++) {
        next_nonce(nonce);
        memcpy(header, in, HEADER);
        header[1] ^= masks[i * SAMPLE];
        header[2] ^= masks[i * SAMPLE + 1];
        struct param told[3] = {
            {"tag", 5, (void *)(in + HEADER + n), TAG, 0}, {"tlsivfixed", 5, nonce, (size_t)-1, 0}, {0}};
        good &= evp->set_params(aead, told) > 0;
        good &= evp->decrypt_update(aead, 0, &done, header, HEADER) > 0;
        good &= evp->decrypt_update(aead, out, &done, in + HEADER, n) > 0;
        good &= evp->decrypt_final(aead, out + n, &done) > 0;
        in += HEADER + n + TAG;
        out += n;
    }
    return good;
}
