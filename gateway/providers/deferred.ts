import type { AnswerSink, Provider, RunningCall } from './port.ts';

/**
 * A provider whose code is loaded at its first call, so that a gateway that never asks it pays neither time nor memory
 * for it. `start` answers at once; what happens until the provider is there is remembered.
 */
export function createDeferredProvider(name: string, load: () => Promise<Provider>): Provider {
  let loading: Promise<Provider> | undefined;
  return {
    name,
    start: (request, sink) =>
      startLater(sink, async () => {
        loading ??= load();
        try {
          const provider = await loading;
          return () => provider.start(request, sink);
        } catch (error) {
          loading = undefined;
          throw error;
        }
      }),
    close: () => Promise.resolve(),
  };
}

/** A call that begins when its preparation (a token, a signature) is done. */
export function startLater(sink: AnswerSink, prepare: () => Promise<() => RunningCall>): RunningCall {
  let running: RunningCall | undefined;
  let isAborted = false;
  const play = async (): Promise<void> => {
    try {
      const begin = await prepare();
      if (!isAborted) running = begin();
    } catch (error) {
      if (!isAborted) sink.onFailure(error instanceof Error ? error : new Error(String(error)), false);
    }
  };
  void play();
  return {
    resume: () => running?.resume(),
    abort: () => {
      isAborted = true;
      running?.abort();
    },
  };
}
