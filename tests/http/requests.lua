-- Requests that have been used to have two servers disagree, others that are simply wrong, and
-- those beside them that are right: a list of { group, name, bytes, statuses }, for readings.lua.
--
-- "cut" is an answer that has begun and does not end; 404 is the answer to /next, which must come
-- only where that is a request of its own.

local rep = string.rep

local all = {}
local group

local function add(name, bytes, statuses) all[#all + 1] = { group, name, bytes, statuses } end

-- A request for / with these lines, and what follows it.
local function get(name, lines, statuses, rest)
    add(name, "GET / HTTP/1.1\r\n" .. lines .. "\r\n" .. (rest or ""), statuses)
end

local function post(name, lines, body, statuses)
    add(name, "POST /echo HTTP/1.1\r\nHost: x\r\n" .. lines .. "\r\n" .. body, statuses)
end

local function chunked(name, body, statuses)
    post(name, "Transfer-Encoding: chunked\r\n", body, statuses)
end

local function line(name, text, statuses) add(name, text .. "\r\nHost: x\r\n\r\n", statuses) end

local NEXT = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n"
local FIVE = "5\r\nabcde\r\n0\r\n\r\n"

group = "both lengths"
local CHUNKED = "Transfer-Encoding: chunked\r\n"
post("length first", "Content-Length: 4\r\n" .. CHUNKED, FIVE .. NEXT, "400")
post("coding first", CHUNKED .. "Content-Length: 4\r\n", "0\r\n\r\n" .. NEXT, "400")
post("length 0", "Content-Length: 0\r\n" .. CHUNKED, FIVE, "400")
post("far apart", "Content-Length: 4\r\nA: b\r\nC: d\r\n" .. CHUNKED, FIVE .. NEXT, "400")
post("in capitals", "CONTENT-LENGTH: 4\r\nTRANSFER-ENCODING: CHUNKED\r\n", FIVE, "400")
post("coding unknown", "Content-Length: 5\r\nTransfer-Encoding: x\r\n", "abcde", "400")
post("coding identity", "Content-Length: 5\r\nTransfer-Encoding: identity\r\n", "abcde", "400")
post("coding empty", "Content-Length: 5\r\nTransfer-Encoding:\r\n", "abcde", "400")
add(
    "of HTTP/1.0",
    "POST /echo HTTP/1.0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" .. FIVE,
    "400"
)

group = "codings"
local function coding(name, value, statuses)
    post(name, "Transfer-Encoding:" .. value .. "\r\n", FIVE .. NEXT, statuses)
end
coding("chunked", " chunked", "200 404")
coding("without a space", "chunked", "200 404")
coding("in capitals", " CHUNKED", "200 404")
coding("spaces around", " \t chunked \t", "200 404")
coding("vertical tab before", " \11chunked", "400")
coding("vertical tab behind", " chunked\11", "400")
coding("form feed", " \12chunked", "400")
coding("NUL behind", " chunked\0", "400")
coding("in quotes", ' "chunked"', "400")
coding("single quotes", " 'chunked'", "400")
coding("with a parameter", " chunked;q=1", "400")
coding("comma behind", " chunked,", "400")
coding("comma before", " ,chunked", "400")
coding("something before", " gzip, chunked", "400")
coding("identity before", " identity, chunked", "400")
coding("something behind", " chunked, identity", "400")
coding("twice in a line", " chunked, chunked", "400")
coding("xchunked", " xchunked", "400")
coding("chunkedx", " chunkedx", "400")
coding("chunk", " chunk", "400")
coding("a byte above ASCII", " \255chunked", "400")
coding("long s", " chunked\197\191", "400")
coding("bare CR before", " \rchunked", "400")
coding("bare LF before", " \nchunked", "400")
coding("folded", "\r\n chunked", "400")
coding("folded by a tab", "\r\n\tchunked", "400")
post("twice", CHUNKED .. CHUNKED, FIVE, "400")
post("twice, one unknown", CHUNKED .. "Transfer-Encoding: x\r\n", FIVE, "400")
post("unknown, then chunked", "Transfer-Encoding: x\r\n" .. CHUNKED, FIVE, "400")
post("space before the colon", "Transfer-Encoding : chunked\r\n", FIVE, "400")
post("tab before the colon", "Transfer-Encoding\t: chunked\r\n", FIVE, "400")
post("space before the name", "A: b\r\n Transfer-Encoding: chunked\r\n", FIVE, "400")
post("space within the name", "Transfer Encoding: chunked\r\n", FIVE, "400")
post("NUL within the name", "Transfer-\0Encoding: chunked\r\n", FIVE, "400")
post("behind a bare CR", "A: b\rTransfer-Encoding: chunked\r\n", FIVE, "400")
post("behind a bare LF", "A: b\nTransfer-Encoding: chunked\r\n", FIVE, "400")
post("another name", "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "abcde", "200")
add("of HTTP/1.0", "POST /echo HTTP/1.0\r\n" .. CHUNKED .. "\r\n0\r\n\r\n", "400")
add(
    "of HTTP/1.0, kept",
    "POST /echo HTTP/1.0\r\nConnection: keep-alive\r\n" .. CHUNKED .. "\r\n" .. FIVE .. NEXT,
    "400"
)

group = "lengths"
local function length(name, value, statuses)
    post(name, "Content-Length:" .. value .. "\r\n", "abcde" .. NEXT, statuses)
end
length("5", " 5", "200 404")
length("without a space", "5", "200 404")
length("spaces around", " \t5\t ", "200 404")
length("zeros before", " 0005", "200 404")
length("signed", " +5", "400")
length("negative", " -5", "400")
length("minus nothing", " -0", "400")
length("of C", " 0x5", "400")
length("with a point", " 5.0", "400")
length("with an exponent", " 5e0", "400")
length("a list", " 5, 5", "400")
length("a list of others", " 5, 6", "400")
length("comma behind", " 5,", "400")
length("two words", " 5 6", "400")
length("something behind", " 5x", "400")
length("semicolon", " 5;a=b", "400")
length("in quotes", ' "5"', "400")
length("empty", "", "400")
length("only spaces", "   ", "400")
length("vertical tab", " 5\11", "400")
length("NUL", " 5\0", "400")
length("folded", "\r\n 5", "400")
length("beyond 64 bits", " 18446744073709551621", "400")
length("beyond all", " " .. rep("9", 400), "400")
length("a digit of another script", " \217\165", "400")
length("with underscores", " 0_5", "400")
post("twice the same", "Content-Length: 5\r\nContent-Length: 5\r\n", "abcde", "400")
post("twice", "Content-Length: 5\r\nContent-Length: 6\r\n", "abcdef", "400")
post("twice, one 0", "Content-Length: 0\r\nContent-Length: 33\r\n", NEXT, "400")
post("space before the colon", "Content-Length : 5\r\n", "abcde", "400")
post("space before the name", "A: b\r\n Content-Length: 5\r\n", "abcde", "400")
post("without a colon", "Content-Length 5\r\n", "abcde", "400")
post("behind a bare CR", "A: b\rContent-Length: 5\r\n", "abcde", "400")
post("another name", "Content_Length: 33\r\n", NEXT, "200 404")
get("of GET", "Host: x\r\nContent-Length: 33\r\n", "200", rep("a", 33))
get("of GET, that looks like a request", "Host: x\r\nContent-Length: 34\r\n", "200", NEXT .. "a")
get("none, but a body", "Host: x\r\n", "200 400", "xyz=1&" .. NEXT)
post("less than there is", "Content-Length: 3\r\n", "abcde", "200")
post("more than there is", "Content-Length: 10\r\n", "abc", "200 cut")

group = "lines"
add("bare LF", "GET / HTTP/1.1\nHost: x\n\n", "400")
add("bare LF behind the first", "GET / HTTP/1.1\nHost: x\r\n\r\n", "400")
get("bare LF behind a header", "Host: x\nA: b\r\n", "400")
add("bare LF at the end", "GET / HTTP/1.1\r\nHost: x\r\n\n", "400")
add("bare CR at the end", "GET / HTTP/1.1\r\nHost: x\r\n\r" .. NEXT, "400")
get("bare CR in a value", "Host: x\r\nA: b\rc\r\n", "400")
get("CR CR LF", "Host: x\r\nA: b\r\r\n", "400")
get("LF CR", "Host: x\n\rA: b\r\n", "400")
get("folded", "Host: x\r\nA: b\r\n c: d\r\n", "400")
get("folded by a tab", "Host: x\r\nA: b\r\n\tc\r\n", "400")
get("folded first", " A: b\r\nHost: x\r\n", "400")
get("folded host", "Host:\r\n x\r\n", "400")
get("NUL in a value", "Host: x\r\nA: b\0c\r\n", "400")
get("a control byte in a value", "Host: x\r\nA: b\1c\r\n", "400")
get("DEL in a value", "Host: x\r\nA: b\127c\r\n", "400")
get("a tab in a value", "Host: x\r\nA: b\tc\r\n", "200")
get("bytes above ASCII in a value", "Host: x\r\nA: \195\164\r\n", "200")
get("no colon", "Host: x\r\nA b\r\n", "400")
get("no name", "Host: x\r\n: b\r\n", "400")
get("space behind a name", "Host: x\r\nA : b\r\n", "400")
get("space in a name", "Host: x\r\nA b: c\r\n", "400")
get("brackets in a name", "Host: x\r\nA[b]: c\r\n", "400")
get("bytes above ASCII in a name", "Host: x\r\n\195\164: c\r\n", "400")
get("NUL in a name", "Host: x\r\nA\0: c\r\n", "400")
get("no value", "Host: x\r\nA:\r\n", "200")
add("an empty line before", "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "200")
add("bare LF before", "\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", "400")
get("101 headers", "Host: x\r\n" .. rep("A: b\r\n", 100), "431")
get("a long header", "Host: x\r\nA: " .. rep("b", 70000) .. "\r\n", "431")
add("half a head", "GET / HTTP/1.1\r\nHo", "")

group = "first lines"
line("two spaces", "GET  / HTTP/1.1", "400")
line("two spaces before the version", "GET /  HTTP/1.1", "400")
line("tabs", "GET\t/\tHTTP/1.1", "400")
line("space before", " GET / HTTP/1.1", "400")
line("space behind", "GET / HTTP/1.1 ", "400")
line("space in the target", "GET /a b HTTP/1.1", "400")
line("tab in the target", "GET /a\tb HTTP/1.1", "400")
line("NUL in the target", "GET /a\0b HTTP/1.1", "400")
line("bare CR in the target", "GET /a\rb HTTP/1.1", "400")
line("DEL in the target", "GET /a\127b HTTP/1.1", "400")
line("a fragment", "GET /#a HTTP/1.1", "400")
line("no slash", "GET next HTTP/1.1", "400")
line("a query alone", "GET ?a HTTP/1.1", "400")
line("an asterisk", "GET * HTTP/1.1", "400")
line("an asterisk of OPTIONS", "OPTIONS * HTTP/1.1", "404")
line("no target", "GET HTTP/1.1", "400")
line("no version", "GET /", "400")
add("HTTP/0.9", "GET /\r\n", "400")
line("a version in lower case", "GET / http/1.1", "400")
line("a version with more digits", "GET / HTTP/1.10", "400")
line("a version with a zero", "GET / HTTP/01.1", "400")
line("a version and more", "GET / HTTP/1.1x", "400")
line("HTTP/1.2", "GET / HTTP/1.2", "505")
line("HTTP/2.0", "GET / HTTP/2.0", "505")
add("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505")
line("no method", " / HTTP/1.1", "400")
line("brackets in the method", "G(T / HTTP/1.1", "400")
line("a method in lower case", "get /next HTTP/1.1", "404")
line("a method nobody knows", "XYZ /next HTTP/1.1", "404")
add("a long target", "GET /" .. rep("b", 70000) .. " HTTP/1.1\r\nHost: x\r\n\r\n", "414")
add("a handshake of TLS", "\22\3\1\0\5\1\0\0\1\0", "400")

group = "hosts"
get("none", "", "400")
get("empty", "Host:\r\n", "200")
get("two", "Host: a\r\nHost: b\r\n", "400")
get("two of one name", "Host: a\r\nHost: a\r\n", "400")
get("a list", "Host: a, b\r\n", "400")
get("a path", "Host: a/b\r\n", "400")
get("a query", "Host: a?b\r\n", "400")
get("a fragment", "Host: a#b\r\n", "400")
get("a user", "Host: me@a\r\n", "400")
get("a space", "Host: a b\r\n", "400")
get("a backslash", "Host: a\\b\r\n", "400")
get("a URL", "Host: http://a\r\n", "400")
get("two ports", "Host: a:80:81\r\n", "400")
get("a port that is none", "Host: a:b\r\n", "400")
get("a port", "Host: a:8080\r\n", "200")
get("an address", "Host: [::1]:8080\r\n", "200")
get("an address that does not end", "Host: [::1\r\n", "400")
get("something behind an address", "Host: [::1]a\r\n", "400")
local function absolute(name, url, host, statuses)
    add(name, "GET " .. url .. " HTTP/1.1\r\n" .. host .. "\r\n", statuses)
end
absolute("in the first line, the same", "http://a/", "Host: A\r\n", "200")
absolute("in the first line, another", "http://a/", "Host: b\r\n", "400")
absolute("in the first line, none else", "http://a/", "", "400")
absolute("in the first line, with a user", "http://me@a/", "Host: a\r\n", "400")
absolute("in the first line, empty", "http:///next", "Host: x\r\n", "400")
absolute("of another scheme", "ftp://a/", "Host: a\r\n", "400")
absolute("a scheme without a host", "http:/next", "Host: x\r\n", "400")
absolute("of HTTPS, where there is none", "https://a/", "Host: a\r\n", "200")
add("none, of HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "200")

group = "chunks"
chunked("one", FIVE .. NEXT, "200 404")
chunked("capitals, zeros before", "0005\r\nabcde\r\n000\r\n\r\n" .. NEXT, "200 404")
chunked("an extension", '5;a="b";c\r\nabcde\r\n0;d\r\n\r\n' .. NEXT, "200 404")
chunked("bare LF in an extension", "5;a\nabcde\r\n0\r\n\r\n", "400")
chunked("bare CR in an extension", "5;a\rb\r\nabcde\r\n0\r\n\r\n", "400")
chunked("NUL in an extension", "5;a\0\r\nabcde\r\n0\r\n\r\n", "400")
chunked("a line's end in quotes", '5;a="\r\n"\r\nabcde\r\n0\r\n\r\n', "400")
chunked("a long extension", "5;" .. rep("a", 20480) .. "\r\nabcde\r\n0\r\n\r\n", "400")
chunked("bare LF behind a size", "5\nabcde\r\n0\r\n\r\n", "400")
chunked("bare CR behind a size", "5\rabcde\r\n0\r\n\r\n", "400")
chunked("a size of C", "0x5\r\nabcde\r\n0\r\n\r\n", "400")
chunked("a negative size", "-5\r\nabcde\r\n0\r\n\r\n", "400")
chunked("a signed size", "+5\r\nabcde\r\n0\r\n\r\n", "400")
chunked("a size with an underscore", "0_5\r\nabcde\r\n0\r\n\r\n", "400")
chunked("space behind a size", "5 \r\nabcde\r\n0\r\n\r\n", "400")
chunked("space before a size", " 5\r\nabcde\r\n0\r\n\r\n", "400")
chunked("something behind a size", "5g\r\nabcde\r\n0\r\n\r\n", "400")
chunked("no size", "\r\nabcde\r\n0\r\n\r\n", "400")
chunked("a size beyond 64 bits", "10000000000000005\r\nabcde\r\n0\r\n\r\n", "400")
chunked("a size of 64 bits", "ffffffffffffffff\r\nabcde\r\n0\r\n\r\n", "400")
chunked("many zeros", rep("0", 40) .. "5\r\nabcde\r\n0\r\n\r\n", "400")
chunked("no end", "5\r\nabcdeXX0\r\n\r\n", "400")
chunked("bare LF behind the bytes", "5\r\nabcde\n0\r\n\r\n", "400")
chunked("bare CR behind the bytes", "5\r\nabcde\r0\r\n\r\n", "400")
chunked("longer than it says", "5\r\nabcdef\r\n0\r\n\r\n", "400")
chunked("bare LF behind the last size", "0\n\r\n", "400")
chunked("bare LF at the end", "0\r\n\n" .. NEXT, "400")
chunked("half of one", "5\r\nab", "200 cut")
chunked("no last one", "5\r\nabcde\r\n", "200 cut")
chunked("the last one, and no end", "5\r\nabcde\r\n0\r\n", "200 cut")
chunked("something behind", FIVE .. "\0", "200 400")

group = "trailers"
local function trailer(name, lines, statuses)
    chunked(name, "5\r\nabcde\r\n0\r\n" .. lines .. "\r\n" .. NEXT, statuses)
end
trailer("one", "A: b\r\n", "200 404")
trailer("a length", "Content-Length: 33\r\n", "400")
trailer("a coding", "Transfer-Encoding: chunked\r\n", "400")
trailer("a host", "Host: y\r\n", "400")
trailer("space before the colon", "A : b\r\n", "400")
trailer("folded", "A: b\r\n c\r\n", "400")
trailer("bare LF", "A: b\n", "400")
trailer("bare CR", "A: b\rc\r\n", "400")
trailer("NUL", "A: b\0\r\n", "400")
trailer("a request", "GET /next HTTP/1.1\r\n", "400")
trailer("longer than a head may be", "A: " .. rep("b", 70000) .. "\r\n", "200 cut")
trailer("more than there may be headers", rep("A: b\r\n", 101), "400")

group = "what follows"
get("another", "Host: x\r\n", "200 404", NEXT)
get("garbage", "Host: x\r\n", "200 400", "\0\1garbage\r\n\r\n")
get("something bad", "Host: x\r\n", "200 400", "GET / HTTP/1.1\r\nHost : x\r\n\r\n")
get("behind Connection: close", "Host: x\r\nConnection: close\r\n", "200", NEXT)
get("behind close and more", "Host: x\r\nConnection: close, Content-Length\r\n", "200", NEXT)
add("behind HTTP/1.0", "GET / HTTP/1.0\r\n\r\n" .. NEXT, "200")
add("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n" .. NEXT, "501")
add("CONNECT to a path", "CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n" .. NEXT, "400")
add(
    "CONNECT with a body",
    "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 33\r\n\r\n" .. NEXT,
    "501"
)
local H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
get("an upgrade to h2c", "Host: x\r\n" .. H2C, "200 404", NEXT)
local WEBSOCKET = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n"
    .. "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
get("an upgrade to WebSocket", "Host: x\r\n" .. WEBSOCKET, "200 404", NEXT)
post("an upgrade with a body", WEBSOCKET .. "Content-Length: 5\r\n", "abcde" .. NEXT, "200 404")
post("Expect", "Expect: 100-continue\r\nContent-Length: 5\r\n", "abcde" .. NEXT, "100 200 404")
post("Expect, and more", "Expect: y 100-continue\r\nContent-Length: 5\r\n", "abcde", "417")
get("Expect without a body", "Host: x\r\nExpect: 100-continue\r\n", "200 404", NEXT)

return all
