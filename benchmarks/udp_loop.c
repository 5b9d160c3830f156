/* One datagram a system call, in C: what plain UDP does where nothing is batched and nothing secured.
   Built and called by sealwire.bench.rivals.udp_loop. */

#include <sys/socket.h>
#include <time.h>

static double clock_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double clock_now(void)
{
    return clock_of(CLOCK_MONOTONIC);
}

/* Send datagrams of n bytes for `seconds` at `rate` a second, 0 for flat out; how many.  CPU spent on
   waiting for the next one's time is added to `waited`. */
long send_loop(int fd, const void *data, long n, double rate, double seconds, double *waited)
{
    double start = clock_now(), end = start + seconds, now;
    long sent = 0;
    while ((now = clock_now()) < end) {
        double due = rate > 0 ? start + sent / rate : now;
        if (now < due) {
            double before = clock_of(CLOCK_PROCESS_CPUTIME_ID);
            while (now < due)
                now = clock_now();
            *waited += clock_of(CLOCK_PROCESS_CPUTIME_ID) - before;
        }
        for (int k = 0; k < 16; k++)
            sent += send(fd, data, n, 0) == n;
    }
    return sent;
}

/* Count what arrives, for ever. */
void receive_loop(int fd, volatile long *count)
{
    static char buffer[65536];
    for (;;)
        *count += recv(fd, buffer, sizeof buffer, 0) >= 0;
}
