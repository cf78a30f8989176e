#ifndef WEIR_BASE_ENDIAN_H
#define WEIR_BASE_ENDIAN_H

/* Fixed-width integers at any address, big-endian (wire protocols) and little-endian (our files).
 */

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian machines"
#endif

static inline uint16_t be16_get(const void *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap16(value);
}

static inline uint32_t be32_get(const void *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap32(value);
}

static inline uint64_t be64_get(const void *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap64(value);
}

static inline void be16_put(void *at, uint16_t value)
{
    value = __builtin_bswap16(value);
    memcpy(at, &value, sizeof value);
}

static inline void be32_put(void *at, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(at, &value, sizeof value);
}

static inline void be64_put(void *at, uint64_t value)
{
    value = __builtin_bswap64(value);
    memcpy(at, &value, sizeof value);
}

static inline uint16_t le16_get(const void *at)
{
    uint16_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint32_t le32_get(const void *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline uint64_t le64_get(const void *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline void le16_put(void *at, uint16_t value)
{
    memcpy(at, &value, sizeof value);
}

static inline void le32_put(void *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static inline void le64_put(void *at, uint64_t value)
{
    memcpy(at, &value, sizeof value);
}

#endif
