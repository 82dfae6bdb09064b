// Hello, and an answer in JSON, over HTTP: node server.js PORT
"use strict";
const http = require("http");

http
  .createServer((req, res) => {
    if (req.url === "/json") {
      const body = JSON.stringify({ message: "hello", numbers: [1, 2, 3], ok: true });
      res.writeHead(200, { "content-type": "application/json", "content-length": body.length });
      return res.end(body);
    }
    res.writeHead(200, { "content-type": "text/plain", "content-length": 5 });
    res.end("hello");
  })
  .listen(Number(process.argv[2]), "127.0.0.1", 4096);
