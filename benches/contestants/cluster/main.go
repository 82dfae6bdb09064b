// Queries over NATS by nats.go, to be compared with benches/scripts/cluster_ask.lua.
//
//	main serve URL
//	main ask URL COUNT IN_FLIGHT
//	main broadcast URL COUNT NODES
package main

import (
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	connection, err := nats.Connect(os.Args[2])
	check(err)
	if os.Args[1] == "serve" {
		_, err = connection.Subscribe("bench", func(message *nats.Msg) {
			check(message.Respond(message.Data))
		})
		check(err)
		check(connection.Flush())
		fmt.Println("ready")
		select {}
	}
	count, _ := strconv.Atoi(os.Args[3])
	if os.Args[1] == "broadcast" {
		broadcast(connection, count)
		return
	}
	flight, _ := strconv.Atoi(os.Args[4])
	each := count / flight
	times := make([][]float64, flight)
	var group sync.WaitGroup
	began := time.Now()
	for asker := 0; asker < flight; asker++ {
		group.Add(1)
		go func(asker int) {
			defer group.Done()
			for i := 0; i < each; i++ {
				at := time.Now()
				_, err := connection.Request("bench", []byte("12345678901234567890"), 10*time.Second)
				check(err)
				times[asker] = append(times[asker], float64(time.Since(at).Nanoseconds())/1e3)
			}
		}(asker)
	}
	group.Wait()
	took := time.Since(began).Seconds()
	var all []float64
	for _, list := range times {
		all = append(all, list...)
	}
	sort.Float64s(all)
	fmt.Printf("%d in flight: %.0f/s, p50 %.1f us, p99 %.1f us\n", flight,
		float64(len(all))/took, all[len(all)/2], all[len(all)*99/100])
}

// Publications of 1 KiB to as many connections, each in a goroutine of its own.
func broadcast(connection *nats.Conn, count int) {
	nodes, _ := strconv.Atoi(os.Args[4])
	var group sync.WaitGroup
	for node := 0; node < nodes; node++ {
		listener, err := nats.Connect(os.Args[2])
		check(err)
		group.Add(1)
		left := count
		subscription, err := listener.Subscribe("bench.all", func(*nats.Msg) {
			left--
			if left == 0 {
				group.Done()
			}
		})
		check(err)
		check(subscription.SetPendingLimits(-1, -1))
		check(listener.Flush())
	}
	value := make([]byte, 1024)
	began := time.Now()
	for i := 0; i < count; i++ {
		check(connection.Publish("bench.all", value))
	}
	group.Wait()
	took := time.Since(began).Seconds()
	fmt.Printf("%.0f publications/s, %.1f MB/s to processes\n", float64(count)/took,
		float64(count*nodes*1024)/took/1e6)
}
