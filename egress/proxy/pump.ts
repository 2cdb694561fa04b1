import type { Readable, Writable } from 'node:stream';

/**
 * Moves bytes on as they come, at the pace of whoever takes them. `onChunk` sees each piece first and may throw. Resolves at
 * the source's end; the sink is left open.
 */
export function pump(source: Readable, sink: Writable, onChunk: (chunk: Buffer) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    let isOver = false;
    const finish = (error?: Error): void => {
      if (isOver) return;
      isOver = true;
      source.off('data', onData).off('end', onEnd).off('close', onClose);
      sink.off('drain', onDrain).off('close', onSinkClose);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onData = (chunk: Buffer): void => {
      try {
        onChunk(chunk);
      } catch (error) {
        source.pause();
        finish(error as Error);
        return;
      }
      if (!sink.write(chunk)) source.pause();
    };
    const onDrain = (): void => void source.resume();
    const onEnd = (): void => finish();
    const onClose = (): void => {
      if (source.readableEnded) finish();
      else finish(source.errored ?? new Error('the source broke off'));
    };
    const onSinkClose = (): void => finish(sink.errored ?? new Error('the other side hung up'));
    source.on('data', onData).on('end', onEnd).on('close', onClose);
    // Told by `close` too, and without a listener it would end the process.
    source.on('error', () => undefined);
    sink.on('error', () => undefined);
    sink.on('drain', onDrain).on('close', onSinkClose);
    if (source.readableEnded) finish();
    else if (source.destroyed) onClose();
    else if (sink.destroyed) onSinkClose();
  });
}

/** Ends a sink and waits until it has taken all. */
export function finished(sink: Writable): Promise<void> {
  return new Promise((resolve, reject) => {
    if (sink.writableFinished) {
      resolve();
      return;
    }
    sink.once('finish', resolve);
    sink.once('close', () => {
      if (!sink.writableFinished) reject(sink.errored ?? new Error('the other side hung up'));
    });
    sink.end();
  });
}
