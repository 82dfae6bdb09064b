/* What a buffer userdata holds. A script gets at it with ffi.cast("nl_buffer *", buffer), but
 * should prefer the methods: they check bounds, and cost nothing in compiled code.
 *
 * Invariant: the bytes ptr[0] .. ptr[len + room - 1] may be accessed; those below len are content.
 * Content may be written only with NL_BUFFER_UNIQUE set; room is 0 without it.
 * A released buffer has ptr = NULL, len = room = 0 and no flag of these.
 */
enum {
  NL_BUFFER_LIVE = 1,      /* not released */
  NL_BUFFER_UNIQUE = 2,    /* nobody else holds these bytes: they may be written in place */
  NL_BUFFER_OWNED = 4,     /* bytes in a block of this buffer alone */
  NL_BUFFER_SHARED = 8     /* bytes in a counted block; without this and OWNED: in the userdata */
};

typedef struct nl_buffer {
  union {
    uint8_t *ptr;    /* first byte */
    double address;  /* the same, for comparisons: reading it allocates nothing */
  };
  int32_t len;       /* bytes held */
  int32_t room;      /* bytes behind the last one that may be written without reserving */
  uint16_t flags;    /* NL_BUFFER_* */
  uint16_t place;    /* bytes that can be stored in the userdata */
  uint32_t charged;  /* bytes reported to the memory account */
  uintptr_t store[4]; /* opaque; the bytes of small buffers start here */
} nl_buffer;
