import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { CallOutcome } from './calls/run-call.ts';
import { ListPrices } from './prices/price-book.ts';

const TTFT_BUCKETS_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];
const LIST_PRICES = new ListPrices();

/** The gateway's numbers. Models have the names of the price list, others share one label: their names come from callers. */
export class GatewayMetrics {
  readonly #calls: Counter<'model' | 'provider' | 'outcome'>;
  readonly #tokens: Counter<'model' | 'kind'>;
  readonly #ttft: Histogram<'model'>;
  readonly #inFlight: Gauge;
  readonly #replays: Counter;

  constructor(registry: Registry = new Registry()) {
    const registers = [registry];
    this.#calls = new Counter({
      name: 'longhaul_gateway_calls_total',
      help: 'Model calls that reached a provider, by outcome',
      labelNames: ['model', 'provider', 'outcome'],
      registers,
    });
    this.#tokens = new Counter({
      name: 'longhaul_gateway_tokens_total',
      help: 'Tokens by kind; input excludes cached tokens',
      labelNames: ['model', 'kind'],
      registers,
    });
    this.#ttft = new Histogram({
      name: 'longhaul_gateway_ttft_seconds',
      help: 'Time from the request to the provider to the first byte of its answer',
      labelNames: ['model'],
      buckets: TTFT_BUCKETS_SECONDS,
      registers,
    });
    this.#inFlight = new Gauge({
      name: 'longhaul_gateway_in_flight_calls',
      help: 'Model calls running at providers now',
      registers,
    });
    this.#replays = new Counter({
      name: 'longhaul_gateway_replays_total',
      help: 'Requests answered from a recorded or running call without a new one',
      registers,
    });
  }

  started(): void {
    this.#inFlight.inc();
  }

  replayed(): void {
    this.#replays.inc();
  }

  ended(model: string, provider: string, outcome: CallOutcome): void {
    const label = LIST_PRICES.find({ provider, model, teamId: '' })?.modelId ?? 'other';
    this.#inFlight.dec();
    this.#calls.inc({ model: label, provider, outcome: outcome.failure?.error.code ?? 'ok' });
    if (outcome.ttftMs !== null) this.#ttft.observe({ model: label }, outcome.ttftMs / 1_000);
    const { usage } = outcome;
    const tokens = [
      ['input', usage.inputTokens],
      ['cache_read', usage.cacheReadTokens],
      ['cache_write', usage.cacheWrite5mTokens + usage.cacheWrite1hTokens],
      ['output', usage.outputTokens],
    ] as const;
    for (const [kind, count] of tokens) if (count > 0) this.#tokens.inc({ model: label, kind }, count);
  }
}
