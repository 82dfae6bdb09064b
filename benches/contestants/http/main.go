// Hello, and an answer in JSON, over HTTP: server PORT
package main

import (
	"encoding/json"
	"net/http"
	"os"
)

type answer struct {
	Message string `json:"message"`
	Numbers []int  `json:"numbers"`
	Ok      bool   `json:"ok"`
}

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		w.Write([]byte("hello"))
	})
	http.HandleFunc("/json", func(w http.ResponseWriter, r *http.Request) {
		body, _ := json.Marshal(answer{"hello", []int{1, 2, 3}, true})
		w.Header().Set("Content-Type", "application/json")
		w.Write(body)
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
