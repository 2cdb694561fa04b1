import { WebSocket } from 'undici';
import { anyAbort } from '../../../contracts/abort.ts';
import { LonghaulError } from '../../../contracts/error-codes.ts';
import type { Wire } from './connection.ts';

const CONNECT_TIMEOUT_MS = 30_000;

/** Connects to an app-server that listens on loopback; the token keeps other programs of this machine out. */
export async function connectWebSocket(endpoint: string, token: string, signal: AbortSignal): Promise<Wire> {
  const socket = new WebSocket(endpoint, { headers: { authorization: `Bearer ${token}` } });
  let listener: { onText: (text: string) => void; onClose: () => void } | undefined;
  let isClosed = false;
  socket.addEventListener('message', (event) => {
    if (typeof event.data === 'string') listener?.onText(event.data);
  });
  socket.addEventListener('close', () => {
    isClosed = true;
    listener?.onClose();
  });
  await opened(socket, signal);
  return {
    send: (text) => socket.send(text),
    listen: (onText, onClose) => {
      listener = { onText, onClose };
      if (isClosed) onClose();
    },
    close: () => socket.close(),
  };
}

async function opened(socket: WebSocket, signal: AbortSignal): Promise<void> {
  const limit = anyAbort([signal, AbortSignal.timeout(CONNECT_TIMEOUT_MS)]);
  try {
    await new Promise<void>((resolve, reject) => {
      const refuse = (): void => reject(new LonghaulError('harness_unavailable', 'codex takes no connection'));
      if (limit.aborted) refuse();
      limit.addEventListener('abort', refuse, { once: true });
      socket.addEventListener('open', () => resolve());
      socket.addEventListener('error', refuse);
      socket.addEventListener('close', refuse);
    });
  } catch (error) {
    socket.close();
    throw error;
  }
}
