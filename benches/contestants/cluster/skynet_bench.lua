-- Queries from one skynet process to another, to be compared with benches/scripts/cluster_ask.lua.
-- In skynet's folder, with this file's folder in BENCH:
--   BENCH_ROLE=serve ./skynet $BENCH/skynet_config &
--   BENCH_ROLE=ask BENCH_COUNT=100000 BENCH_FLIGHT=512 ./skynet $BENCH/skynet_config
local skynet = require("skynet")
local cluster = require("skynet.cluster")

local function serve()
    skynet.dispatch("lua", function(_, _, value) skynet.ret(skynet.pack(value)) end)
    cluster.register("bench", skynet.self())
    cluster.open("bench")
    print("ready")
end

local function ask()
    local count = tonumber(os.getenv("BENCH_COUNT"))
    local flight = tonumber(os.getenv("BENCH_FLIGHT"))
    local each, left, times, began = math.floor(count / flight), flight, {}, skynet.hpc()
    cluster.call("bench", "@bench", "12345678901234567890")
    local function one()
        for _ = 1, each do
            local at = skynet.hpc()
            cluster.call("bench", "@bench", "12345678901234567890")
            times[#times + 1] = (skynet.hpc() - at) / 1e3
        end
        left = left - 1
        if left > 0 then return end
        local took = (skynet.hpc() - began) / 1e9
        table.sort(times)
        local middle, last = times[math.ceil(#times / 2)], times[math.ceil(#times * 0.99)]
        local text = "%d in flight: %.0f/s, p50 %.1f us, p99 %.1f us"
        print(text:format(flight, #times / took, middle, last))
        os.exit(0)
    end
    for _ = 1, flight do
        skynet.fork(one)
    end
end

skynet.start(function()
    cluster.reload({ bench = "127.0.0.1:" .. (os.getenv("BENCH_PORT") or "2528") })
    if os.getenv("BENCH_ROLE") == "serve" then
        serve()
    else
        ask()
    end
end)
