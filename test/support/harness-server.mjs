// A server as harnesses are, but small: tells who and where it is. Started by the server host. Arguments: port, and what it
// waits for before it answers, a file or "".
import { existsSync } from 'node:fs';
import { createServer } from 'node:http';

const [port, gate] = process.argv.slice(2);
createServer((request, response) => {
  if (gate !== '' && !existsSync(gate)) return response.writeHead(503).end();
  if (request.headers.authorization !== process.env.SECRET) return response.writeHead(401).end();
  if (request.url === '/noise') process.stdout.write('noise '.repeat(2_000_000));
  response.end(JSON.stringify({ pid: process.pid, env: process.env, cwd: process.cwd() }));
}).listen(Number(port), '127.0.0.1');
