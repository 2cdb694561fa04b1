import { createHash } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

const MAGIC = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** The server's end of a WebSocket (RFC 6455), as much as a stream of binary messages needs. Emits `message`, `close`. */
export class ServerSocket extends EventEmitter<{ message: [Buffer]; close: [] }> {
  private readonly socket: Duplex;
  private held: Buffer = Buffer.alloc(0);
  private message: Buffer[] = [];
  private isClosed = false;

  constructor(socket: Duplex) {
    super();
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => this.take(chunk));
    socket.on('error', () => this.ended());
    socket.on('close', () => this.ended());
  }

  private ended(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.emit('close');
  }

  private take(chunk: Buffer): void {
    this.held = this.held.length === 0 ? chunk : Buffer.concat([this.held, chunk]);
    for (;;) {
      const frame = frameOf(this.held);
      if (frame === null) return;
      this.held = this.held.subarray(frame.sizeBytes);
      if (frame.opcode === OPCODE.close) {
        this.close();
        return;
      }
      if (frame.opcode === OPCODE.ping) this.frame(OPCODE.pong, frame.payload);
      if (frame.opcode > OPCODE.binary) continue;
      this.message.push(frame.payload);
      if (!frame.isLast) continue;
      this.emit('message', Buffer.concat(this.message));
      this.message = [];
    }
  }

  private frame(opcode: number, payload: Buffer): boolean {
    if (this.socket.destroyed) return true;
    const { length } = payload;
    const head =
      length < 126 ? Buffer.from([0x80 | opcode, length]) : Buffer.alloc(length < 65_536 ? 4 : 10, 0x80 | opcode);
    if (length >= 65_536) {
      head[1] = 127;
      head.writeBigUInt64BE(BigInt(length), 2);
    } else if (length >= 126) {
      head[1] = 126;
      head.writeUInt16BE(length, 2);
    }
    this.socket.write(head);
    return this.socket.write(payload);
  }

  /** False when whoever sends should wait for `drained`. */
  send(payload: Buffer): boolean {
    return this.frame(OPCODE.binary, payload);
  }

  async drained(): Promise<void> {
    if (!this.socket.writableNeedDrain || this.socket.destroyed) return;
    await new Promise<void>((resolve) => {
      this.socket.once('drain', resolve);
      this.socket.once('close', resolve);
    });
  }

  close(): void {
    this.frame(OPCODE.close, Buffer.from([0x03, 0xe8]));
    this.socket.end();
    this.ended();
  }

  /** As a connection that broke. */
  drop(): void {
    this.socket.destroy();
  }
}

function frameOf(bytes: Buffer): { opcode: number; isLast: boolean; payload: Buffer; sizeBytes: number } | null {
  if (bytes.length < 2) return null;
  const [first = 0, second = 0] = bytes;
  const short = second & 0x7f;
  const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
  const maskAt = 2 + lengthBytes;
  if (bytes.length < maskAt + 4) return null;
  const length = short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short;
  const dataAt = maskAt + 4;
  if (bytes.length < dataAt + length) return null;
  const mask = bytes.subarray(maskAt, dataAt);
  const payload = Buffer.from(bytes.subarray(dataAt, dataAt + length));
  for (let index = 0; index < length; index += 1) payload[index] = (payload[index] ?? 0) ^ (mask[index % 4] ?? 0);
  return { opcode: first & 0x0f, isLast: (first & 0x80) !== 0, payload, sizeBytes: dataAt + length };
}

/** Answers the upgrade with the first protocol both know. */
export function accept(request: IncomingMessage, socket: Duplex, known: string[]): ServerSocket {
  const offered = (request.headers['sec-websocket-protocol'] ?? '').split(/\s*,\s*/);
  const chosen = offered.find((each) => known.includes(each)) ?? '';
  const key = createHash('sha1')
    .update(`${request.headers['sec-websocket-key'] ?? ''}${MAGIC}`)
    .digest('base64');
  const lines = [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Accept: ${key}`,
  ];
  if (chosen !== '') lines.push(`Sec-WebSocket-Protocol: ${chosen}`);
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  return new ServerSocket(socket);
}
