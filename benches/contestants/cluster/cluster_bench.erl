%% Queries from one Erlang node to another, to be compared with benches/scripts/cluster_ask.lua.
%%   erl -noshell -sname serve -setcookie bench -s cluster_bench serve
%%   erl -noshell -sname ask -setcookie bench -run cluster_bench ask COUNT IN_FLIGHT
-module(cluster_bench).
-export([serve/0, ask/1]).

serve() ->
    register(bench, self()),
    io:format("ready~n"),
    loop().

loop() ->
    receive {From, Ref, Value} -> From ! {Ref, Value} end,
    loop().

ask([Count, Flight]) ->
    N = list_to_integer(Count), F = list_to_integer(Flight), Each = N div F,
    [_, Host] = string:split(atom_to_list(node()), "@"),
    Node = list_to_atom("serve@" ++ Host),
    pong = net_adm:ping(Node),
    Self = self(),
    T0 = erlang:monotonic_time(microsecond),
    [spawn(fun() -> Self ! {done, one(Node, Each, [])} end) || _ <- lists:seq(1, F)],
    All = lists:sort(lists:append([receive {done, L} -> L end || _ <- lists:seq(1, F)])),
    T1 = erlang:monotonic_time(microsecond),
    Len = length(All),
    io:format("~b in flight: ~b/s, p50 ~.1f us, p99 ~.1f us~n",
        [F, round(Len * 1.0e6 / (T1 - T0)), lists:nth(Len div 2, All) / 1.0e3,
         lists:nth(Len * 99 div 100, All) / 1.0e3]),
    halt().

one(_, 0, L) -> L;
one(Node, K, L) ->
    Ref = make_ref(),
    At = erlang:monotonic_time(nanosecond),
    {bench, Node} ! {self(), Ref, <<"12345678901234567890">>},
    receive {Ref, _} -> ok end,
    one(Node, K - 1, [erlang:monotonic_time(nanosecond) - At | L]).
