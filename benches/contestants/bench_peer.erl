%% The work of each row for Erlang: `erl ... -run bench_peer main ROW ARGUMENTS…`. The runner sets +S.
-module(bench_peer).
-export([main/1]).

main([Row | Arguments]) ->
    row(Row, [number(A) || A <- Arguments]),
    halt().

number(Text) ->
    try list_to_integer(Text) catch error:badarg -> Text end.

row("echo", [Port, _Workers, Head, Batch]) -> serve(Port, fun(S) -> echo(S, Head, Batch, <<>>) end);
row("gate", [Port | _]) -> serve(Port, fun gate/1);
row("idle", [Port | _]) ->
    [spawn(fun() -> receive never -> ok end end) || _ <- lists:seq(1, 100)],
    serve(Port, fun(S) -> gen_tcp:recv(S, 0) end);
row("broadcast", [Port | _]) ->
    Hub = spawn(fun() -> hub([]) end),
    serve(Port, fun(S) -> Hub ! {client, S}, orders(S, Hub, <<>>) end);
row("query", [Pairs, Payload, Count | _]) ->
    Value = value(Payload),
    Wall = measured(fun() ->
        workers(Pairs, fun() ->
            Server = spawn_link(fun answer/0),
            ask(Server, Value, Count)
        end)
    end),
    say("metric us_per_query ~w", [Wall * 1.0e6 / (Pairs * Count)]);
row("flood", [Producers, Payload, Count]) ->
    Value = value(Payload),
    Wall = measured(fun() ->
        Self = self(),
        [spawn_link(fun() -> flood(Self, Value, Count) end) || _ <- lists:seq(1, Producers)],
        drain(Producers * Count)
    end),
    say("metric messages_per_s ~w", [Producers * Count / Wall]);
row("create", [Count]) ->
    Wall = measured(fun() ->
        Self = self(),
        [spawn(fun() -> Self ! up, receive never -> ok end end) || _ <- lists:seq(1, Count)],
        [receive up -> ok end || _ <- lists:seq(1, Count)]
    end),
    say("metric wall_ms ~w", [Wall * 1000]);
row("timers", [Count]) ->
    put(errors, []),
    measured(fun() ->
        start_timers(Count, 1),
        [receive Due -> put(errors, [now_s() - Due | get(errors)]) end || _ <- lists:seq(1, Count)]
    end),
    Errors = list_to_tuple(lists:sort([abs(E) || E <- get(errors)])),
    say("metric error_p50_ms ~w", [element(max(1, Count div 2), Errors) * 1000]),
    say("metric error_p99_ms ~w", [element(max(1, Count * 99 div 100), Errors) * 1000]),
    say("metric early ~w", [length([E || E <- get(errors), E < 0])]).

value("number") -> 42.0;
value("string") -> <<"twenty bytes of text">>;
value("table") -> #{a => 1, b => <<"x">>, c => [1, 2, 3]}.

say(Format, Arguments) -> io:format(Format ++ "~n", Arguments).

now_s() -> erlang:monotonic_time(nanosecond) / 1.0e9.

measured(Work) ->
    say("begin", []),
    timer:sleep(50),
    Start = now_s(),
    Work(),
    Wall = now_s() - Start,
    say("end", []),
    timer:sleep(300),
    Wall.

workers(Count, Work) ->
    Self = self(),
    [spawn_link(fun() -> Work(), Self ! done end) || _ <- lists:seq(1, Count)],
    [receive done -> ok end || _ <- lists:seq(1, Count)].

answer() ->
    receive {From, Ref, Value} -> From ! {Ref, Value}, answer() end.

ask(_, _, 0) -> ok;
ask(Server, Value, N) ->
    Ref = make_ref(),
    Server ! {self(), Ref, Value},
    receive {Ref, _} -> ask(Server, Value, N - 1) end.

flood(_, _, 0) -> ok;
flood(To, Value, N) -> To ! {message, Value}, flood(To, Value, N - 1).

drain(0) -> ok;
drain(N) -> receive {message, _} -> drain(N - 1) end.

start_timers(0, _) -> ok;
start_timers(N, Last) ->
    Random = Last * 16807 rem 2147483647,
    Ms = 500 + Random rem 2500,
    erlang:send_after(Ms, self(), now_s() + Ms / 1000),
    start_timers(N - 1, Random).

serve(Port, Connection) ->
    {ok, Listener} = gen_tcp:listen(Port, [
        binary, {ip, {127, 0, 0, 1}}, {active, false}, {nodelay, true}, {reuseaddr, true},
        {backlog, 16384}, {packet, raw}, {buffer, 65536}
    ]),
    say("ready", []),
    accept(Listener, Connection).

accept(Listener, Connection) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Pid = spawn(fun() -> receive go -> Connection(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    accept(Listener, Connection).

%% Batch 1: the frames of one read leave in one send; 0: a send for each.
echo(Socket, Head, Batch, Rest) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Bytes} ->
            {Frames, Left} = frames(Head, join(Rest, Bytes), []),
            Out = [[<<(byte_size(B)):(Head * 8)/little>>, B] || B <- Frames],
            case Batch of
                1 -> Out =:= [] orelse gen_tcp:send(Socket, Out);
                0 -> [gen_tcp:send(Socket, Frame) || Frame <- Out]
            end,
            echo(Socket, Head, Batch, Left);
        {error, _} -> ok
    end.

join(<<>>, Bytes) -> Bytes;
join(Rest, Bytes) -> <<Rest/binary, Bytes/binary>>.

frames(Head, Bytes, Found) ->
    Bits = Head * 8,
    case Bytes of
        <<Size:Bits/little, Body:Size/binary, Rest/binary>> -> frames(Head, Rest, [Body | Found]);
        _ -> {lists:reverse(Found), Bytes}
    end.

gate(Socket) ->
    Agent = spawn_link(fun() -> agent(Socket) end),
    gate(Socket, Agent, <<>>).

gate(Socket, Agent, Rest) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Bytes} ->
            {Frames, Left} = frames(2, join(Rest, Bytes), []),
            [Agent ! {packet, B} || B <- Frames],
            gate(Socket, Agent, Left);
        {error, _} -> exit(closed)
    end.

agent(Socket) ->
    receive
        {packet, B} ->
            gen_tcp:send(Socket, [<<(byte_size(B)):16/little>>, B]),
            agent(Socket)
    end.

orders(Socket, Hub, Rest) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Bytes} ->
            {Frames, Left} = frames(2, join(Rest, Bytes), []),
            [Hub ! {broadcast, binary_to_integer(B)} || B <- Frames],
            orders(Socket, Hub, Left);
        {error, _} -> ok
    end.

hub(Clients) ->
    receive
        {client, S} -> hub([S | Clients]);
        {broadcast, N} ->
            Data = [<<1024:16/little>>, binary:copy(<<"x">>, 1024)],
            [gen_tcp:send(S, Data) || _ <- lists:seq(1, N), S <- Clients],
            hub(Clients)
    end.
