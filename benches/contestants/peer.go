// The work of each row for Go: `peer ROW ARGUMENTS…`. GOMAXPROCS is set by the runner.
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"
)

type table struct {
	a int
	b string
	c []int
}

func value(payload string) interface{} {
	switch payload {
	case "number":
		return 42.0
	case "string":
		return "twenty bytes of text"
	}
	return &table{1, "x", []int{1, 2, 3}}
}

func measured(work func()) float64 {
	fmt.Println("begin")
	time.Sleep(50 * time.Millisecond)
	start := time.Now()
	work()
	wall := time.Since(start).Seconds()
	fmt.Println("end")
	time.Sleep(300 * time.Millisecond)
	return wall
}

func listen(port string) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	return l
}

// readFrame reads one frame, its head included, into a slice that grows when it must.
func readFrame(in *bufio.Reader, head int, buf []byte) ([]byte, error) {
	if _, err := io.ReadFull(in, buf[:head]); err != nil {
		return buf, err
	}
	var size int
	if head == 2 {
		size = int(binary.LittleEndian.Uint16(buf))
	} else {
		size = int(binary.LittleEndian.Uint32(buf))
	}
	if cap(buf) < head+size {
		grown := make([]byte, head+size)
		copy(grown, buf[:head])
		buf = grown
	}
	buf = buf[:head+size]
	_, err := io.ReadFull(in, buf[head:])
	return buf, err
}

// udp sends every datagram back.
func udp(port string) {
	address, err := net.ResolveUDPAddr("udp4", "127.0.0.1:"+port)
	if err != nil {
		panic(err)
	}
	c, err := net.ListenUDP("udp4", address)
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	buf := make([]byte, 65536)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			panic(err)
		}
		if _, err := c.WriteToUDPAddrPort(buf[:n], from); err != nil {
			panic(err)
		}
	}
}

// echo answers each frame with a write of its own, or, with batch, the frames of one read together.
func echo(port string, head int, batch bool) {
	for l := listen(port); ; {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer c.Close()
			in, out := bufio.NewReaderSize(c, 65536), bufio.NewWriterSize(c, 65536)
			buf := make([]byte, 4096)
			for {
				f, err := readFrame(in, head, buf[:cap(buf)])
				if err != nil {
					return
				}
				out.Write(f)
				if (!batch || in.Buffered() == 0) && out.Flush() != nil {
					return
				}
				buf = f
			}
		}()
	}
}

// gate hands each packet of a connection to the goroutine of its agent, which answers.
func gate(port string) {
	for l := listen(port); ; {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		packets := make(chan []byte, 64)
		go func() {
			for p := range packets {
				c.Write(p)
			}
		}()
		go func() {
			defer close(packets)
			defer c.Close()
			in := bufio.NewReaderSize(c, 65536)
			for {
				f, err := readFrame(in, 2, make([]byte, 66))
				if err != nil {
					return
				}
				packets <- f
			}
		}()
	}
}

func broadcast(port string) {
	data := append([]byte{0, 4}, []byte(strings.Repeat("x", 1024))...)
	var lock sync.Mutex
	var clients []net.Conn
	for l := listen(port); ; {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		lock.Lock()
		clients = append(clients, c)
		lock.Unlock()
		go func() {
			in := bufio.NewReader(c)
			for {
				f, err := readFrame(in, 2, make([]byte, 64))
				if err != nil {
					return
				}
				n, _ := strconv.Atoi(string(f[2:]))
				lock.Lock()
				for i := 0; i < n; i++ {
					for _, client := range clients {
						client.Write(data)
					}
				}
				lock.Unlock()
			}
		}()
	}
}

func idle(port string) {
	for i := 0; i < 100; i++ {
		go func() { <-make(chan int) }()
	}
	for l := listen(port); ; {
		c, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go func() { c.Read(make([]byte, 64)) }()
	}
}

type request struct {
	value  interface{}
	answer chan interface{}
}

func query(pairs int, payload string, count int) {
	var wg sync.WaitGroup
	wall := measured(func() {
		for i := 0; i < pairs; i++ {
			requests := make(chan request)
			go func() {
				for r := range requests {
					r.answer <- r.value
				}
			}()
			wg.Add(1)
			go func() {
				answer := make(chan interface{})
				v := value(payload)
				for j := 0; j < count; j++ {
					requests <- request{v, answer}
					<-answer
				}
				wg.Done()
			}()
		}
		wg.Wait()
	})
	fmt.Println("metric us_per_query", wall*1e6/float64(pairs*count))
}

func flood(producers int, payload string, count int) {
	wall := measured(func() {
		mailbox := make(chan interface{}, 65536)
		for i := 0; i < producers; i++ {
			go func() {
				v := value(payload)
				for j := 0; j < count; j++ {
					mailbox <- v
				}
			}()
		}
		for i := 0; i < producers*count; i++ {
			<-mailbox
		}
	})
	fmt.Println("metric messages_per_s", float64(producers*count)/wall)
}

func create(count int) {
	up := make(chan bool, 1024)
	wall := measured(func() {
		for i := 0; i < count; i++ {
			go func() {
				up <- true
				<-make(chan int)
			}()
		}
		for i := 0; i < count; i++ {
			<-up
		}
	})
	fmt.Println("metric wall_ms", wall*1000)
}

func timers(count int) {
	errors := make([]float64, 0, count)
	var lock sync.Mutex
	measured(func() {
		var wg sync.WaitGroup
		wg.Add(count)
		random := 1
		for i := 0; i < count; i++ {
			random = random * 16807 % 2147483647
			d := time.Duration(500+random%2500) * time.Millisecond
			due := time.Now().Add(d)
			time.AfterFunc(d, func() {
				e := time.Since(due).Seconds()
				lock.Lock()
				errors = append(errors, e)
				lock.Unlock()
				wg.Done()
			})
		}
		wg.Wait()
	})
	early := 0
	for i, e := range errors {
		if e < 0 {
			early++
			errors[i] = -e
		}
	}
	sort.Float64s(errors)
	fmt.Println("metric error_p50_ms", errors[count/2]*1000)
	fmt.Println("metric error_p99_ms", errors[count*99/100]*1000)
	fmt.Println("metric early", early)
}

func main() {
	a := os.Args[1:]
	n := func(i int) int {
		v, err := strconv.Atoi(a[i])
		if err != nil {
			panic(err)
		}
		return v
	}
	switch a[0] {
	case "echo":
		echo(a[1], n(3), n(4) == 1)
	case "udp":
		udp(a[1])
	case "gate":
		gate(a[1])
	case "broadcast":
		broadcast(a[1])
	case "idle":
		idle(a[1])
	case "query":
		query(n(1), a[2], n(3))
	case "flood":
		flood(n(1), a[2], n(3))
	case "create":
		create(n(1))
	case "timers":
		timers(n(1))
	default:
		panic("no row " + a[0])
	}
}
