import type { ServerResponse } from 'node:http';
import { LonghaulError } from '../../contracts/error-codes.ts';
import { REQUEST_ID_HEADER, type Protocol } from '../protocol.ts';
import { endWithFailure } from './broadcast.ts';
import type { AnswerTaker, CallOutcome, UpstreamCall } from './run-call.ts';

interface Answering {
  res: ServerResponse;
  requestId: string;
  protocol: Protocol;
}

/** An answer that does not stream is of no use in pieces; one up to this size is sent in one. */
const HELD_BYTES = 64 * 1024;

/** Gives a call's answer to one response at that one's pace; the call ends when the caller goes away. */
export async function answerWith(
  { res, requestId, protocol }: Answering,
  start: (taker: AnswerTaker) => UpstreamCall,
): Promise<{ outcome: CallOutcome; end: () => void }> {
  let isStreamed = false;
  let held: Buffer[] | undefined = [];
  let heldBytes = 0;
  const call = start({
    // The head waits for the first piece: until then a failure can still be told by the status.
    onHead: (status, headers, isStream) => {
      isStreamed = isStream;
      res.statusCode = status;
      for (const name in headers) res.setHeader(name, headers[name] ?? '');
      res.setHeader(REQUEST_ID_HEADER, requestId);
    },
    onData: (chunk) => {
      if (isStreamed || held === undefined) return res.write(chunk);
      held.push(chunk);
      heldBytes += chunk.length;
      if (heldBytes <= HELD_BYTES) return true;
      const large = Buffer.concat(held);
      held = undefined;
      return res.write(large);
    },
  });
  const onDrain = (): void => call.resume();
  const onClose = (): void => call.abort(new LonghaulError('cancelled', 'the caller went away'));
  res.on('drain', onDrain);
  res.on('close', onClose);
  const outcome = await call.outcome;
  res.removeListener('drain', onDrain);
  res.removeListener('close', onClose);
  const end = (): void => {
    const { failure, failureWasStreamed: wasStreamed } = outcome;
    if (failure === undefined) res.end(held === undefined || held.length === 0 ? undefined : Buffer.concat(held));
    else endWithFailure(res, { protocol, requestId, isStream: isStreamed }, { failure, wasStreamed });
  };
  return { outcome, end };
}
