/* What a C module may do with coroutines. Declared here: the build has no headers of the VM's. */

typedef struct lua_State lua_State;
typedef int (*lua_CFunction)(lua_State *);

extern void lua_call(lua_State *, int, int);
extern void lua_createtable(lua_State *, int, int);
extern int lua_gettop(lua_State *);
extern void lua_insert(lua_State *, int);
extern lua_State *lua_newthread(lua_State *);
extern void lua_pushcclosure(lua_State *, lua_CFunction, int);
extern void lua_pushinteger(lua_State *, long);
extern int lua_resume(lua_State *, int);
extern void lua_setfield(lua_State *, int, const char *);
extern void lua_settop(lua_State *, int);
extern lua_State *lua_tothread(lua_State *, int);
extern void lua_xmove(lua_State *, lua_State *, int);
extern int lua_yield(lua_State *, int);

/* yield(...) */
static int yield(lua_State *raw) { return lua_yield(raw, lua_gettop(raw)); }

/* resume(co, ...): the status (0, 1 for a yield, 2 for an error), and the values */
static int resume(lua_State *raw) {
  lua_State *co = lua_tothread(raw, 1);
  int count = lua_gettop(raw) - 1;
  lua_xmove(raw, co, count);
  int status = lua_resume(co, count);
  count = status > 1 ? 1 : lua_gettop(co);
  lua_settop(raw, 1);
  lua_pushinteger(raw, status);
  lua_xmove(co, raw, count);
  return count + 1;
}

/* call(f, ...): what it returns */
static int call(lua_State *raw) {
  lua_call(raw, lua_gettop(raw) - 1, -1);
  return lua_gettop(raw);
}

/* create(f): a coroutine made by C */
static int create(lua_State *raw) {
  lua_State *co = lua_newthread(raw);
  lua_insert(raw, 1);
  lua_xmove(raw, co, 1);
  return 1;
}

int luaopen_coroutines(lua_State *raw) {
  lua_createtable(raw, 0, 4);
  lua_pushcclosure(raw, yield, 0);
  lua_setfield(raw, -2, "yield");
  lua_pushcclosure(raw, resume, 0);
  lua_setfield(raw, -2, "resume");
  lua_pushcclosure(raw, call, 0);
  lua_setfield(raw, -2, "call");
  lua_pushcclosure(raw, create, 0);
  lua_setfield(raw, -2, "create");
  return 1;
}
