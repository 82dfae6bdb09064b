// Queries over NATS by nats.go, and over plain TCP, to be compared with
// benches/scripts/cluster_ask.lua and cluster_broadcast.lua.
//
//	main serve URL
//	main ask URL COUNT IN_FLIGHT
//	main broadcast URL COUNT NODES SUBSCRIPTIONS
//	main tcp-serve ADDRESS
//	main tcp-ask ADDRESS COUNT IN_FLIGHT
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
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
	switch os.Args[1] {
	case "tcp-serve":
		serveTCP()
	case "tcp-ask":
		askTCP()
		return
	}
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
	report(flight, all, took)
}

const size = 20

// Answers frames of as many bytes as a query has.
func serveTCP() {
	listener, err := net.Listen("tcp", os.Args[2])
	check(err)
	fmt.Println("ready")
	for {
		connection, err := listener.Accept()
		check(err)
		go func() {
			reader, writer := bufio.NewReader(connection), bufio.NewWriter(connection)
			frame := make([]byte, size)
			for {
				if _, err := io.ReadFull(reader, frame); err != nil {
					return
				}
				writer.Write(frame)
				if reader.Buffered() < size {
					writer.Flush()
				}
			}
		}()
	}
}

// Asks over one connection; answers come in order.
func askTCP() {
	connection, err := net.Dial("tcp", os.Args[2])
	check(err)
	count, _ := strconv.Atoi(os.Args[3])
	flight, _ := strconv.Atoi(os.Args[4])
	reader, writer := bufio.NewReader(connection), bufio.NewWriter(connection)
	frame := make([]byte, size)
	sent := make(chan time.Time, flight)
	began := time.Now()
	for i := 0; i < flight; i++ {
		sent <- time.Now()
		writer.Write(frame)
	}
	check(writer.Flush())
	var times []float64
	for i := 0; i < count; i++ {
		_, err := io.ReadFull(reader, frame)
		check(err)
		times = append(times, float64(time.Since(<-sent).Nanoseconds())/1e3)
		if i+flight < count {
			sent <- time.Now()
			writer.Write(frame)
			if reader.Buffered() < size || i+flight+1 == count {
				check(writer.Flush())
			}
		}
	}
	report(flight, times, time.Since(began).Seconds())
}

func report(flight int, all []float64, took float64) {
	sort.Float64s(all)
	fmt.Printf("%d in flight: %.0f/s, p50 %.1f us, p99 %.1f us\n", flight,
		float64(len(all))/took, all[len(all)/2], all[len(all)*99/100])
}

// Publications of 1 KiB to as many connections, with so many subscriptions each.
func broadcast(connection *nats.Conn, count int) {
	nodes, _ := strconv.Atoi(os.Args[4])
	subscriptions, _ := strconv.Atoi(os.Args[5])
	var group sync.WaitGroup
	for node := 0; node < nodes; node++ {
		listener, err := nats.Connect(os.Args[2])
		check(err)
		for i := 0; i < subscriptions; i++ {
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
		}
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
