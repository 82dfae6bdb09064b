// Queries over NATS by nats.go, to be compared with benches/scripts/cluster_ask.lua.
//
//	main serve URL
//	main ask URL COUNT IN_FLIGHT
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
