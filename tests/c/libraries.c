/* A C module that opens the standard libraries, in its caller's state and in one of its own. */

typedef struct lua_State lua_State;
typedef int (*lua_CFunction)(lua_State *);

extern void lua_close(lua_State *);
extern void lua_createtable(lua_State *, int, int);
extern int lua_pcall(lua_State *, int, int, int);
extern void lua_pushcclosure(lua_State *, lua_CFunction, int);
extern void lua_pushstring(lua_State *, const char *);
extern void lua_setfield(lua_State *, int, const char *);
extern const char *lua_tolstring(lua_State *, int, unsigned long *);
extern int luaL_loadstring(lua_State *, const char *);
extern lua_State *luaL_newstate(void);
extern void luaL_openlibs(lua_State *);

static int open(lua_State *raw) {
  luaL_openlibs(raw);
  return 0;
}

/* run(code): what it returns, as text, in a new state */
static int run(lua_State *raw) {
  lua_State *other = luaL_newstate();
  luaL_openlibs(other);
  if (luaL_loadstring(other, lua_tolstring(raw, 1, 0)) == 0) lua_pcall(other, 0, 1, 0);
  lua_pushstring(raw, lua_tolstring(other, -1, 0));
  lua_close(other);
  return 1;
}

int luaopen_libraries(lua_State *raw) {
  lua_createtable(raw, 0, 2);
  lua_pushcclosure(raw, open, 0);
  lua_setfield(raw, -2, "open");
  lua_pushcclosure(raw, run, 0);
  lua_setfield(raw, -2, "run");
  return 1;
}
