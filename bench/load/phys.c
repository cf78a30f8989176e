/*
 * What this machine can do at all: the bare loopback, disk and memory under a broker. Each item
 * prints one line of JSON with its figures; `phys` alone lists the items.
 *
 * `loopback` is a sender and a receiver; `relay` puts a process between them that reads and writes
 * what it read, which is the least a broker does with a message. Both write so many bytes at a time
 * as a client library does: that is what "the same batching" means.
 */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nmmintrin.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READ_BYTES = 256 * 1024, SPAN_BYTES = 1 << 30, PIECE_BYTES = 1 << 20 };

static int listen_loopback(uint16_t *port, const char *congestion)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (congestion &&
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion)))
        fail("congestion control %s: %s", congestion, strerror(errno));
    if (bind(fd, (struct sockaddr *)&name, sizeof name) || listen(fd, 8) ||
        getsockname(fd, (struct sockaddr *)&name, &size))
        fail("listen: %s", strerror(errno));
    *port = ntohs(name.sin_port);
    return fd;
}

static int connect_loopback(uint16_t port, const char *congestion)
{
    struct sockaddr_in name = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    if (congestion)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion,
                         (socklen_t)strlen(congestion));
    if (connect(fd, (struct sockaddr *)&name, sizeof name))
        fail("connect: %s", strerror(errno));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void send_all(int fd, const char *bytes, size_t size)
{
    while (size) {
        ssize_t count = send(fd, bytes, size, MSG_NOSIGNAL);

        if (count < 0 && errno != EINTR)
            fail("send: %s", strerror(errno));
        bytes += count < 0 ? 0 : count;
        size -= count < 0 ? 0 : (size_t)count;
    }
}

static char *bytes_create(size_t size)
{
    char *bytes = malloc(size);

    if (!bytes)
        fail("out of memory");
    memset(bytes, 'x', size);
    return bytes;
}

_Noreturn static void sender_run(uint16_t port, const char *congestion, size_t write_bytes,
                                 double seconds)
{
    int fd = connect_loopback(port, congestion);
    char *bytes = bytes_create(write_bytes);
    uint64_t end_ns = clock_ns() + (uint64_t)(seconds * 1e9);

    for (uint64_t i = 0; i % 64 || clock_ns() < end_ns; i++)
        send_all(fd, bytes, write_bytes);
    _exit(0);
}

_Noreturn static void relay_run(int listener, uint16_t port, const char *congestion)
{
    int in = accept(listener, NULL, NULL), out = connect_loopback(port, congestion);
    char *bytes = bytes_create(READ_BYTES);
    ssize_t count;

    while ((count = recv(in, bytes, READ_BYTES, 0)) > 0)
        send_all(out, bytes, (size_t)count);
    _exit(0);
}

static double children_cpu_s(void)
{
    struct rusage usage;

    getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void stream_measure(const char *item, size_t write_bytes, double seconds,
                           const char *congestion)
{
    bool relayed = !strcmp(item, "relay");
    uint16_t port, relay_port = 0;
    int listener = listen_loopback(&port, congestion), relay_listener = -1, fd;
    char *bytes = bytes_create(READ_BYTES);
    double began_cpu = (double)cpu_process_ns() / 1e9, children;
    uint64_t total = 0, reads = 0, begin_ns;
    ssize_t count;
    double elapsed;

    if (relayed) {
        relay_listener = listen_loopback(&relay_port, congestion);
        if (!fork())
            relay_run(relay_listener, port, congestion);
    }
    if (!fork())
        sender_run(relayed ? relay_port : port, congestion, write_bytes, seconds);
    fd = accept(listener, NULL, NULL);
    begin_ns = clock_ns();
    while ((count = recv(fd, bytes, READ_BYTES, 0)) > 0) {
        total += (uint64_t)count;
        reads++;
    }
    elapsed = (double)(clock_ns() - begin_ns) / 1e9;
    while (wait(NULL) > 0)
        ;
    children = children_cpu_s();
    printf("{\"tool\":\"phys\",\"item\":\"%s\",\"write_bytes\":%zu,\"congestion\":\"%s\","
           "\"bytes_per_s\":%.0f,\"writes_per_s\":%.0f,\"read_bytes\":%.0f,"
           "\"receiver_cores\":%.2f,\"others_cores\":%.2f}\n",
           item, write_bytes, congestion ? congestion : "default", (double)total / elapsed,
           (double)total / elapsed / (double)write_bytes, (double)total / (double)(reads + !reads),
           ((double)cpu_process_ns() / 1e9 - began_cpu) / elapsed, children / elapsed);
    close(fd);
    close(listener);
    if (relay_listener >= 0)
        close(relay_listener);
    free(bytes);
}

static bool ping_receive(int fd, char *bytes, size_t size, bool wait)
{
    for (size_t got = 0; got < size;) {
        struct pollfd poll_in = {.fd = fd, .events = POLLIN};
        ssize_t count;

        if (wait)
            (void)poll(&poll_in, 1, -1);
        count = recv(fd, bytes + got, size - got, MSG_DONTWAIT);
        if (!count || (count < 0 && errno != EAGAIN))
            return false;
        got += count < 0 ? 0 : (size_t)count;
    }
    return true;
}

/* Round trips of 100 bytes; `spin` polls instead of sleeping. */
static void ping_measure(bool spin, double seconds)
{
    struct histogram *round_trip = histogram_create();
    char bytes[100] = {0};
    uint16_t port;
    int listener = listen_loopback(&port, NULL), fd, one = 1;
    pid_t child = fork();
    uint64_t end_ns;

    if (!child) {
        fd = connect_loopback(port, NULL);
        while (ping_receive(fd, bytes, sizeof bytes, !spin))
            send_all(fd, bytes, sizeof bytes);
        _exit(0);
    }
    fd = accept(listener, NULL, NULL);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    end_ns = clock_ns() + (uint64_t)(seconds * 1e9);
    for (uint64_t now_ns = clock_ns(); now_ns < end_ns;) {
        send_all(fd, bytes, sizeof bytes);
        if (!ping_receive(fd, bytes, sizeof bytes, !spin))
            fail("the other end is gone");
        histogram_add(round_trip, clock_ns() - now_ns);
        now_ns = clock_ns();
    }
    close(fd);
    close(listener);
    waitpid(child, NULL, 0);
    printf("{\"tool\":\"phys\",\"item\":\"ping\",\"wait\":\"%s\",", spin ? "spin" : "poll");
    histogram_print(round_trip, stdout, "us");
    printf("}\n");
    free(round_trip);
}

static int file_create(const char *folder, char path[512])
{
    int fd;

    snprintf(path, 512, "%s/phys.%d", folder, (int)getpid());
    fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
    if (fd < 0)
        fail("%s: %s", path, strerror(errno));
    return fd;
}

/* Write + fdatasync, at the file's end or into a file that was written before. */
static void sync_measure(const char *folder, size_t size, bool prepared, double seconds)
{
    struct histogram *latency = histogram_create();
    char path[512], *bytes = bytes_create(size > PIECE_BYTES ? size : PIECE_BYTES);
    int fd = file_create(folder, path);
    uint64_t total = 0, begin_ns, end_ns;
    size_t span = SPAN_BYTES / 4;
    double elapsed;

    for (size_t done = 0; prepared && done < span; done += PIECE_BYTES)
        if (write(fd, bytes, PIECE_BYTES) != PIECE_BYTES)
            fail("write: %s", strerror(errno));
    if (fsync(fd))
        fail("fsync: %s", strerror(errno));
    begin_ns = clock_ns();
    end_ns = begin_ns + (uint64_t)(seconds * 1e9);
    while (clock_ns() < end_ns) {
        uint64_t write_ns = clock_ns();
        off_t at = (off_t)(prepared ? total % span : total);

        if (pwrite(fd, bytes, size, at) != (ssize_t)size || fdatasync(fd))
            fail("write: %s", strerror(errno));
        histogram_add(latency, clock_ns() - write_ns);
        total += size;
    }
    elapsed = (double)(clock_ns() - begin_ns) / 1e9;
    printf("{\"tool\":\"phys\",\"item\":\"fdatasync\",\"bytes\":%zu,\"prepared\":%s,"
           "\"bytes_per_s\":%.0f,\"syncs_per_s\":%.0f,",
           size, prepared ? "true" : "false", (double)total / elapsed,
           (double)latency->total / elapsed);
    histogram_print(latency, stdout, "us");
    printf("}\n");
    unlink(path);
    close(fd);
    free(bytes);
    free(latency);
}

/* writev into the page cache. */
static void append_measure(const char *folder, int pieces, size_t size, double seconds)
{
    char path[512], *bytes = bytes_create(size);
    struct iovec vector[1024];
    int fd = file_create(folder, path);
    uint64_t total = 0, calls = 0, begin_ns = clock_ns();
    uint64_t end_ns = begin_ns + (uint64_t)(seconds * 1e9);
    double elapsed;

    for (int i = 0; i < pieces; i++)
        vector[i] = (struct iovec){.iov_base = bytes, .iov_len = size};
    while (clock_ns() < end_ns) {
        ssize_t count = writev(fd, vector, pieces);

        if (count < 0)
            fail("write: %s", strerror(errno));
        total += (uint64_t)count;
        calls++;
        if (total % SPAN_BYTES < (uint64_t)count && (ftruncate(fd, 0) || lseek(fd, 0, SEEK_SET)))
            fail("truncate: %s", strerror(errno));
    }
    elapsed = (double)(clock_ns() - begin_ns) / 1e9;
    printf("{\"tool\":\"phys\",\"item\":\"append\",\"pieces\":%d,\"bytes\":%zu,"
           "\"bytes_per_s\":%.0f,\"calls_per_s\":%.0f}\n",
           pieces, size, (double)total / elapsed, (double)calls / elapsed);
    unlink(path);
    close(fd);
    free(bytes);
}

static void memory_measure(size_t size)
{
    char *from = bytes_create(size), *to = bytes_create(size);
    uint64_t rounds = ((uint64_t)4 << 30) / size, begin_ns = clock_ns();

    for (uint64_t i = 0; i < rounds; i++) {
        memcpy(to, from, size);
        __asm__ volatile("" ::"r"(to) : "memory");
    }
    printf("{\"tool\":\"phys\",\"item\":\"memcpy\",\"bytes\":%zu,\"bytes_per_s\":%.0f}\n", size,
           (double)(rounds * size) * 1e9 / (double)(clock_ns() - begin_ns));
    free(from);
    free(to);
}

static void checksum_measure(size_t size)
{
    char *bytes = bytes_create(size);
    uint64_t rounds = ((uint64_t)1 << 30) / size, sum = 0, begin_ns = clock_ns(), elapsed_ns;

    for (uint64_t i = 0; i < rounds; i++)
        for (size_t at = 0; at + 8 <= size; at += 8) {
            uint64_t word;

            memcpy(&word, bytes + at, 8);
            sum = _mm_crc32_u64(sum, word);
        }
    elapsed_ns = clock_ns() - begin_ns;
    printf("{\"tool\":\"phys\",\"item\":\"crc32c\",\"bytes\":%zu,\"bytes_per_s\":%.0f,"
           "\"sum\":%llu}\n",
           size, (double)(rounds * size) * 1e9 / (double)elapsed_ns, (unsigned long long)sum);
    free(bytes);
}

struct echo {
    int to, from;
};

static void *echo_main(void *argument)
{
    struct echo *echo = argument;
    uint64_t value;

    while (read(echo->to, &value, sizeof value) == sizeof value && value == 1)
        if (write(echo->from, &value, sizeof value) != sizeof value)
            break;
    return NULL;
}

/* There and back between two sleeping threads. */
static void wake_measure(double seconds)
{
    struct echo echo = {.to = eventfd(0, 0), .from = eventfd(0, 0)};
    struct histogram *round_trip = histogram_create();
    uint64_t end_ns = clock_ns() + (uint64_t)(seconds * 1e9), value = 1;
    pthread_t thread;

    pthread_create(&thread, NULL, echo_main, &echo);
    for (uint64_t now_ns = clock_ns(); now_ns < end_ns;) {
        value = 1;
        if (write(echo.to, &value, sizeof value) != sizeof value ||
            read(echo.from, &value, sizeof value) != sizeof value)
            fail("eventfd: %s", strerror(errno));
        histogram_add(round_trip, clock_ns() - now_ns);
        now_ns = clock_ns();
    }
    value = 2;
    if (write(echo.to, &value, sizeof value) != sizeof value)
        fail("eventfd: %s", strerror(errno));
    pthread_join(thread, NULL);
    printf("{\"tool\":\"phys\",\"item\":\"wake\",");
    histogram_print(round_trip, stdout, "us");
    printf("}\n");
    free(round_trip);
}

static void call_measure(void)
{
    enum { CALLS = 2000000 };
    uint64_t begin_ns = clock_ns(), clock_begin_ns, clock_end_ns;

    for (int i = 0; i < CALLS; i++)
        (void)getppid();
    clock_begin_ns = clock_ns();
    for (int i = 0; i < CALLS; i++)
        (void)clock_ns();
    clock_end_ns = clock_ns();
    printf("{\"tool\":\"phys\",\"item\":\"call\",\"syscall_ns\":%.1f,\"clock_ns\":%.1f}\n",
           (double)(clock_begin_ns - begin_ns) / CALLS,
           (double)(clock_end_ns - clock_begin_ns) / CALLS);
}

static const char usage[] = "usage: phys ITEM\n"
                            "  loopback|relay WRITE_BYTES SECONDS [CONGESTION]\n"
                            "  ping poll|spin SECONDS\n"
                            "  fdatasync FOLDER BYTES grow|prepared SECONDS\n"
                            "  append FOLDER PIECES BYTES SECONDS\n"
                            "  memcpy BYTES | crc32c BYTES | wake SECONDS | call\n";

static size_t size_argument(const char *text, uint64_t max)
{
    return option_count("size", text, 1, max);
}

static double seconds_argument(const char *text)
{
    return option_number("SECONDS", text, 0.01, 3600);
}

int main(int count, char **arguments)
{
    const char *item = count > 1 ? arguments[1] : "";

    signal(SIGPIPE, SIG_IGN);
    clock_fine();
    if ((!strcmp(item, "loopback") || !strcmp(item, "relay")) && count >= 4)
        stream_measure(item, size_argument(arguments[2], SPAN_BYTES),
                       seconds_argument(arguments[3]), count > 4 ? arguments[4] : NULL);
    else if (!strcmp(item, "ping") && count == 4)
        ping_measure(!strcmp(arguments[2], "spin"), seconds_argument(arguments[3]));
    else if (!strcmp(item, "fdatasync") && count == 6)
        sync_measure(arguments[2], size_argument(arguments[3], 1 << 26),
                     !strcmp(arguments[4], "prepared"), seconds_argument(arguments[5]));
    else if (!strcmp(item, "append") && count == 6)
        append_measure(arguments[2], (int)option_count("PIECES", arguments[3], 1, 1024),
                       size_argument(arguments[4], 1 << 20), seconds_argument(arguments[5]));
    else if (!strcmp(item, "memcpy") && count == 3)
        memory_measure(size_argument(arguments[2], SPAN_BYTES));
    else if (!strcmp(item, "crc32c") && count == 3)
        checksum_measure(size_argument(arguments[2], SPAN_BYTES));
    else if (!strcmp(item, "wake") && count == 3)
        wake_measure(seconds_argument(arguments[2]));
    else if (!strcmp(item, "call") && count == 2)
        call_measure();
    else
        fail("%s", usage);
    return 0;
}
