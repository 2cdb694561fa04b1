import type { Response } from 'express';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** The process's metrics, on a registry of its own so that tests may make many. */
export class Metrics {
  readonly registry = new Registry();
  readonly openStreams = new Gauge({
    name: 'longhaul_api_open_streams',
    help: 'Event streams open now',
    registers: [this.registry],
  });
  readonly deliveries = new Counter({
    name: 'longhaul_api_deliveries_total',
    help: 'Inputs and starts handed to workflows, by outcome',
    labelNames: ['outcome'],
    registers: [this.registry],
  });
  readonly undelivered = new Gauge({
    name: 'longhaul_api_undelivered',
    help: 'What the last sweep found undelivered',
    registers: [this.registry],
  });
  private readonly requests = new Histogram({
    name: 'longhaul_api_request_seconds',
    help: 'Time to the end of the answer, by route and status',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [this.registry],
  });

  /** Node's own metrics too; once per process. */
  collectDefaults(): void {
    collectDefaultMetrics({ register: this.registry });
  }

  /** Times one answer. Streams are counted by `openStreams` instead. */
  watch(res: Response, item: { method: string; path: string }): void {
    const end = this.requests.startTimer({ method: item.method.toUpperCase(), route: item.path });
    res.once('finish', () => end({ status: res.statusCode }));
  }
}
