/* Linked into the weir binary for AFL++ (tests/fuzz/afl): a thread that takes one input after the
 * other from the fuzzer and speaks it to the broker through a socket, while the broker runs as it
 * always does. When enough inputs were spoken the process is gone at once, and the next one starts
 * on the same data folder, as after a crash.
 *
 * The first byte of an input chooses. Bit 0: what SHIM_GREETING names is said first. Bit 1: the
 * rest are pieces, {kind, length (two bytes), payload}..., of which right frames (AMQP) or requests
 * (Kafka) are made, so that fuzzing gets behind the framing.
 *
 * SHIM_PORT      of the face, on 127.0.0.1
 * SHIM_FACE      amqp, kafka or http
 * SHIM_GREETING  a file */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

__AFL_FUZZ_INIT();

enum { INPUTS = 5000, INPUT_BYTES_MAX = 1 << 16, START_TRIES = 5000, ANSWER_WAIT_MS = 50 };

static int shim_connect(void)
{
    const char *port = getenv("SHIM_PORT");
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                               .sin_port = htons((uint16_t)atoi(port ? port : "0"))};
    for (int i = 0; i < START_TRIES; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0)
            return fd;
        close(fd);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    abort(); /* the broker does not take connections any more */
}

static void say(int fd, const void *data, size_t len)
{
    (void)!send(fd, data, len, MSG_NOSIGNAL);
}

/* The greeting's answers are waited for: the broker takes nothing before its time. */
static void listen_briefly(int fd, int wait_ms)
{
    static char bytes[1 << 16];
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    while (poll(&poll_fd, 1, wait_ms) > 0 && recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        wait_ms = 0;
}

/* The pieces as the face frames them; gathered, as small packets would wait for each other. */
static void say_pieces(int fd, const uint8_t *data, size_t size, bool amqp)
{
    static uint8_t out[9 * (size_t)INPUT_BYTES_MAX];
    uint8_t *to = out;
    for (size_t at = 0; at + 3 <= size;) {
        uint8_t kind = data[at];
        size_t len = (size_t)(data[at + 1] & 0x3f) << 8 | data[at + 2];
        at += 3;
        if (len > size - at)
            len = size - at;
        static const uint8_t types[4] = {1, 1, 2, 3};
        size_t whole = len + 4; /* of a request: key and version come first */
        uint8_t frame[7] = {types[kind & 3],     0,           kind >> 2 & 3, 0, 0,
                            (uint8_t)(len >> 8), (uint8_t)len};
        uint8_t request[8] = {0, 0,        (uint8_t)(whole >> 8), (uint8_t)whole, 0, kind & 63,
                              0, kind >> 6};
        size_t head = amqp ? sizeof frame : sizeof request;
        memcpy(to, amqp ? frame : request, head);
        memcpy(to + head, data + at, len);
        to += head + len;
        if (amqp)
            *to++ = 0xce;
        at += len;
    }
    say(fd, out, (size_t)(to - out));
}

static void speak(const uint8_t *data, size_t size, const uint8_t *greeting, size_t greeting_len,
                  const char *face)
{
    int fd = shim_connect();
    if (data[0] & 1 && greeting_len > 0) {
        say(fd, greeting, greeting_len);
        listen_briefly(fd, ANSWER_WAIT_MS);
    }
    if (data[0] & 2 && strcmp(face, "http") != 0)
        say_pieces(fd, data + 1, size - 1, strcmp(face, "amqp") == 0);
    else
        say(fd, data + 1, size - 1);
    shutdown(fd, SHUT_WR);
    listen_briefly(fd, ANSWER_WAIT_MS);
    close(fd);
}

static void *shim_main(void *arg)
{
    (void)arg;
    static uint8_t greeting[4096];
    size_t greeting_len = 0;
    const char *path = getenv("SHIM_GREETING"), *face = getenv("SHIM_FACE");
    int fd = -1;
    if (path && (fd = open(path, O_RDONLY)) >= 0) {
        ssize_t got = read(fd, greeting, sizeof greeting);
        greeting_len = got > 0 ? (size_t)got : 0;
        close(fd);
    }
    close(shim_connect()); /* it is up */
    uint8_t *data = __AFL_FUZZ_TESTCASE_BUF;
    while (__AFL_LOOP(INPUTS)) {
        int size = __AFL_FUZZ_TESTCASE_LEN;
        if (size > 0 && size <= INPUT_BYTES_MAX)
            speak(data, (size_t)size, greeting, greeting_len, face ? face : "amqp");
    }
    _exit(0);
}

int __real_main(int argc, char **argv);
int __wrap_main(int argc, char **argv);

/* The linker puts it in front of main: before that, a thread would be the fork server's. */
int __wrap_main(int argc, char **argv)
{
    pthread_t thread;
    if (getenv("SHIM_PORT") && pthread_create(&thread, NULL, shim_main, NULL) == 0)
        pthread_detach(thread);
    return __real_main(argc, argv);
}
