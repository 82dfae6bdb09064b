/* Signals, as modules in C handle them that know of one state only: the handler sets a hook in the
 * coroutine that has asked last, and the hook calls the function of the script. */
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

typedef struct lua_State lua_State;
typedef struct lua_Debug lua_Debug;
typedef int (*lua_CFunction)(lua_State *);
typedef void (*lua_Hook)(lua_State *, lua_Debug *);

extern int lua_sethook(lua_State *, lua_Hook, int, int);
extern void lua_pushcclosure(lua_State *, lua_CFunction, int);
extern void lua_pushinteger(lua_State *, ptrdiff_t);
extern void lua_pushboolean(lua_State *, int);
extern void lua_pushstring(lua_State *, const char *);
extern void lua_pushvalue(lua_State *, int);
extern void lua_createtable(lua_State *, int, int);
extern void lua_setfield(lua_State *, int, const char *);
extern void lua_getfield(lua_State *, int, const char *);
extern ptrdiff_t lua_tointeger(lua_State *, int);
extern const char *lua_tolstring(lua_State *, int, size_t *);
extern void lua_call(lua_State *, int, int);

extern int __sigaction(int, const struct sigaction *, struct sigaction *);

#define REGISTRY (-10000)

static lua_State *asked;
static volatile sig_atomic_t last;

static void call(lua_State *L, lua_Debug *activation) {
  (void)activation;
  lua_sethook(L, NULL, 0, 0);
  lua_getfield(L, REGISTRY, "signals.function");
  lua_pushinteger(L, last);
  lua_call(L, 1, 0);
}

static void on_signal(int number) {
  last = number;
  lua_sethook(asked, call, 1 | 2 | 8, 1);
}

static void on_information(int number, siginfo_t *information, void *context) {
  (void)context;
  if (information->si_signo == number) on_signal(number);
}

static const char *name_of(void (*handler)(int)) {
  return handler == SIG_DFL ? "default" : handler == SIG_IGN ? "ignored"
         : handler == on_signal || handler == (void (*)(int))on_information ? "ours" : "other";
}

/* on(number, how, function): has it called; `how` is "action", "information", "signal", "default"
 * or "ignore". What was there before. */
static int on(lua_State *L) {
  int number = (int)lua_tointeger(L, 1);
  const char *how = lua_tolstring(L, 2, NULL);
  struct sigaction new, old;
  asked = L;
  lua_pushvalue(L, 3);
  lua_setfield(L, REGISTRY, "signals.function");
  if (strcmp(how, "signal") == 0) {
    lua_pushstring(L, name_of(signal(number, on_signal)));
    return 1;
  }
  memset(&new, 0, sizeof new);
  new.sa_handler = on_signal;
  if (strcmp(how, "default") == 0) new.sa_handler = SIG_DFL;
  if (strcmp(how, "ignore") == 0) new.sa_handler = SIG_IGN;
  if (strcmp(how, "information") == 0) {
    new.sa_sigaction = on_information;
    new.sa_flags = SA_SIGINFO;
  }
  lua_pushstring(L, sigaction(number, &new, &old) == 0 ? name_of(old.sa_handler) : "error");
  return 1;
}

/* what(number): what is there. */
static int what(lua_State *L) {
  struct sigaction old;
  int result = sigaction((int)lua_tointeger(L, 1), NULL, &old);
  lua_pushstring(L, result != 0 ? "error"
                    : (old.sa_flags & SA_SIGINFO) != 0 && old.sa_sigaction != on_information
                        ? "wrong flags" : name_of(old.sa_handler));
  return 1;
}

/* is_direct(number): whether the system calls the function of this module itself. */
static int is_direct(lua_State *L) {
  struct sigaction old;
  int result = __sigaction((int)lua_tointeger(L, 1), NULL, &old);
  lua_pushboolean(L, result == 0 && old.sa_handler == on_signal);
  return 1;
}

/* send(number): to this process. */
static int send_signal(lua_State *L) {
  lua_pushinteger(L, kill(getpid(), (int)lua_tointeger(L, 1)));
  return 1;
}

int luaopen_signals(lua_State *L) {
  lua_createtable(L, 0, 4);
  lua_pushcclosure(L, on, 0);
  lua_setfield(L, -2, "on");
  lua_pushcclosure(L, what, 0);
  lua_setfield(L, -2, "what");
  lua_pushcclosure(L, is_direct, 0);
  lua_setfield(L, -2, "is_direct");
  lua_pushcclosure(L, send_signal, 0);
  lua_setfield(L, -2, "send");
  return 1;
}
