/* A C module that opens the standard libraries, all or one, in its caller's state and in one of its
   own. */

typedef struct lua_State lua_State;
typedef int (*lua_CFunction)(lua_State *);

extern void lua_call(lua_State *, int, int);
extern void lua_close(lua_State *);
extern void lua_createtable(lua_State *, int, int);
extern int lua_pcall(lua_State *, int, int, int);
extern void lua_pushcclosure(lua_State *, lua_CFunction, int);
extern void lua_pushstring(lua_State *, const char *);
extern void lua_setfield(lua_State *, int, const char *);
extern int lua_toboolean(lua_State *, int);
extern long lua_tointeger(lua_State *, int);
extern const char *lua_tolstring(lua_State *, int, unsigned long *);
extern int lua_gettop(lua_State *);
extern int lua_yield(lua_State *, int);
extern int luaL_loadstring(lua_State *, const char *);
extern lua_State *luaL_newstate(void);
extern void luaL_openlibs(lua_State *);

extern int luaopen_base(lua_State *);
extern int luaopen_bit(lua_State *);
extern int luaopen_debug(lua_State *);
extern int luaopen_ffi(lua_State *);
extern int luaopen_io(lua_State *);
extern int luaopen_jit(lua_State *);
extern int luaopen_math(lua_State *);
extern int luaopen_os(lua_State *);
extern int luaopen_package(lua_State *);
extern int luaopen_string(lua_State *);
extern int luaopen_table(lua_State *);

static const struct {
  const char *name;
  lua_CFunction open;
} libraries[] = {
  {"_G", luaopen_base},       {"bit", luaopen_bit},         {"debug", luaopen_debug},
  {"ffi", luaopen_ffi},       {"io", luaopen_io},           {"jit", luaopen_jit},
  {"math", luaopen_math},     {"os", luaopen_os},           {"package", luaopen_package},
  {"string", luaopen_string}, {"table", luaopen_table},
};

/* one(index): name and library, as `luaopen_…` returns it; nothing if there are no more */
static int one(lua_State *raw) {
  unsigned long index = lua_tointeger(raw, 1) - 1;
  if (index >= sizeof libraries / sizeof *libraries) return 0;
  lua_pushstring(raw, libraries[index].name);
  lua_pushcclosure(raw, libraries[index].open, 0);
  lua_pushstring(raw, libraries[index].name);
  lua_call(raw, 1, 1);
  return 2;
}

static int open(lua_State *raw) {
  luaL_openlibs(raw);
  return 0;
}

static int yields(lua_State *raw) { return lua_yield(raw, lua_gettop(raw)); }

/* run(code, singly): what it returns, as text, in a new state */
static int run(lua_State *raw) {
  lua_State *other = luaL_newstate();
  if (lua_toboolean(raw, 2)) {
    for (unsigned long i = 0; i < sizeof libraries / sizeof *libraries; i++) {
      lua_pushcclosure(other, libraries[i].open, 0);
      lua_pushstring(other, libraries[i].name[0] == '_' ? "" : libraries[i].name);
      lua_call(other, 1, 0);
    }
  } else {
    luaL_openlibs(other);
  }
  lua_pushcclosure(other, yields, 0);
  lua_setfield(other, -10002, "yields");
  if (luaL_loadstring(other, lua_tolstring(raw, 1, 0)) == 0) lua_pcall(other, 0, 1, 0);
  lua_pushstring(raw, lua_tolstring(other, -1, 0));
  lua_close(other);
  return 1;
}

int luaopen_libraries(lua_State *raw) {
  lua_createtable(raw, 0, 3);
  lua_pushcclosure(raw, open, 0);
  lua_setfield(raw, -2, "open");
  lua_pushcclosure(raw, one, 0);
  lua_setfield(raw, -2, "one");
  lua_pushcclosure(raw, run, 0);
  lua_setfield(raw, -2, "run");
  return 1;
}
