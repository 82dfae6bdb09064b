// The work of each row for Node.js: `node peer.js ROW ARGUMENTS…`.
'use strict';
const net = require('net');
const { Worker, MessageChannel, isMainThread, workerData, parentPort } = require('worker_threads');

const seconds = () => Number(process.hrtime.bigint()) / 1e9;
const say = (...words) => process.stdout.write(words.join(' ') + '\n');
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function measured(work) {
  say('begin');
  await wait(50);
  const start = seconds();
  const value = await work();
  const wall = seconds() - start;
  say('end');
  await wait(300);
  return [wall, value];
}

/** Calls `use(body)` for each whole frame and returns what is left. */
function frames(head, rest, chunk, use) {
  let bytes = rest.length ? Buffer.concat([rest, chunk]) : chunk;
  let at = 0;
  while (bytes.length - at >= head) {
    const size = head === 2 ? bytes.readUInt16LE(at) : bytes.readUInt32LE(at);
    if (bytes.length - at < head + size) break;
    use(bytes.subarray(at + head, at + head + size));
    at += head + size;
  }
  return at ? bytes.subarray(at) : bytes;
}

function frame(head, body) {
  const out = Buffer.allocUnsafe(head + body.length);
  if (head === 2) out.writeUInt16LE(body.length, 0);
  else out.writeUInt32LE(body.length, 0);
  body.copy(out, head);
  return out;
}

/** `batch` 1: the frames of one read leave in one write; 0: a write for each, as people write it. */
function echo(port, workers, head, batch) {
  const cluster = require('cluster');
  if (workers > 1 && cluster.isPrimary) {
    let up = 0;
    cluster.on('listening', () => { if (++up === workers) say('ready'); });
    for (let i = 0; i < workers; i++) cluster.fork();
    return;
  }
  net.createServer({ noDelay: true }, (socket) => {
    let rest = Buffer.alloc(0);
    socket.on('data', (chunk) => {
      if (batch) socket.cork();
      rest = frames(head, rest, chunk, (body) => socket.write(frame(head, body)));
      if (batch) socket.uncork();
    });
    socket.on('error', () => {});
  }).listen({ port, host: '127.0.0.1', backlog: 16384 }, () => workers > 1 || say('ready'));
}

function udp(port) {
  const socket = require('dgram').createSocket('udp4');
  socket.on('message', (data, from) => socket.send(data, from.port, from.address));
  socket.bind(port, '127.0.0.1', () => say('ready'));
}

function broadcast(port) {
  const clients = new Set();
  const data = frame(2, Buffer.alloc(1024, 'x'));
  net.createServer({ noDelay: true }, (socket) => {
    let rest = Buffer.alloc(0);
    clients.add(socket);
    socket.on('data', (chunk) => {
      rest = frames(2, rest, chunk, (body) => {
        for (let i = Number(body.toString()); i > 0; i--) for (const c of clients) c.write(data);
      });
    });
    socket.on('error', () => {});
    socket.on('close', () => clients.delete(socket));
  }).listen({ port, host: '127.0.0.1', backlog: 16384 }, () => say('ready'));
}

function idle(port) {
  net.createServer((socket) => socket.on('data', () => {}).on('error', () => {}))
    .listen({ port, host: '127.0.0.1', backlog: 16384 }, () => say('ready'));
}

const payloads = { number: 42, string: 'twenty bytes of text', table: { a: 1, b: 'x', c: [1, 2, 3] } };

const roles = {
  server({ port }) { port.on('message', (v) => port.postMessage(v)); },
  client({ port, payload, count }) {
    const value = payloads[payload];
    parentPort.once('message', () => {
      let left = count;
      port.on('message', () => {
        if (--left) port.postMessage(value);
        else parentPort.postMessage('done');
      });
      port.postMessage(value);
    });
  },
  producer({ port, payload, count }) {
    const value = payloads[payload];
    parentPort.once('message', () => {
      let left = count;
      const some = () => {
        for (let i = 0; i < 1000 && left; i++, left--) port.postMessage(value);
        if (left) setImmediate(some);
      };
      some();
    });
  },
  consumer({ ports, count }) {
    let left = count;
    for (const port of ports) port.on('message', () => { if (!--left) parentPort.postMessage('done'); });
  },
};

function start(role, data, transfer) {
  const worker = new Worker(__filename, { workerData: { role, ...data }, transferList: transfer });
  return new Promise((up) => worker.once('online', () => up(worker)));
}

const done = (worker) => new Promise((f) => worker.once('message', f));

async function query(pairs, payload, count) {
  const clients = [];
  for (let i = 0; i < pairs; i++) {
    const { port1, port2 } = new MessageChannel();
    await start('server', { port: port1 }, [port1]);
    clients.push(await start('client', { port: port2, payload, count }, [port2]));
  }
  await wait(100);
  const [wall] = await measured(async () => {
    const all = clients.map(done);
    clients.forEach((c) => c.postMessage('go'));
    await Promise.all(all);
  });
  say('metric us_per_query', (wall * 1e6) / (pairs * count));
}

async function flood(producers, payload, count) {
  const sides = Array.from({ length: producers }, () => new MessageChannel());
  const ports = sides.map((s) => s.port2);
  const consumer = await start('consumer', { ports, count: producers * count }, ports);
  const all = [];
  for (const { port1 } of sides) all.push(await start('producer', { port: port1, payload, count }, [port1]));
  await wait(100);
  const [wall] = await measured(async () => {
    const end = done(consumer);
    all.forEach((p) => p.postMessage('go'));
    await end;
  });
  say('metric messages_per_s', (producers * count) / wall);
}

async function timers(count) {
  const errors = new Float64Array(count);
  let fired = 0;
  await measured(() => new Promise((finish) => {
    let random = 1;
    for (let i = 0; i < count; i++) {
      random = (random * 16807) % 2147483647;
      const ms = 500 + (random % 2500);
      const due = seconds() + ms / 1000;
      setTimeout(() => {
        errors[fired++] = seconds() - due;
        if (fired === count) finish();
      }, ms);
    }
  }));
  const early = errors.filter((e) => e < 0).length;
  const size = errors.map(Math.abs).sort();
  const at = (q) => size[Math.min(count - 1, Math.floor(count * q))] * 1000;
  say('metric error_p50_ms', at(0.5));
  say('metric error_p99_ms', at(0.99));
  say('metric early', early);
}

async function main() {
  const [row, a, b, c, d] = process.argv.slice(2);
  switch (row) {
    case 'echo': return echo(Number(a), Number(b), Number(c), Number(d));
    case 'udp': return udp(Number(a));
    case 'broadcast': return broadcast(Number(a));
    case 'idle': return idle(Number(a));
    case 'query': await query(Number(a), b, Number(c)); break;
    case 'flood': await flood(Number(a), b, Number(c)); break;
    case 'timers': await timers(Number(a)); break;
    default: throw new Error('no row ' + row);
  }
  process.exit(0);
}

if (isMainThread) main();
else roles[workerData.role](workerData);
