import { Counter, Gauge, type Registry } from 'prom-client';

/** What the caps of one sandbox count. */
export type Capped = 'connections' | 'requests' | 'sockets';

/** How much of what is capped for each sandbox is in use by all, and how often one was at its cap. */
export class LimitMetrics {
  readonly #reached: Counter<'limit'>;

  constructor(registry: Registry, inUse: () => Record<Capped, number>) {
    const registers = [registry];
    this.#reached = new Counter({
      name: 'longhaul_egress_limits_reached_total',
      help: 'What was refused because a sandbox had as much of it as it may have at a time',
      labelNames: ['limit'],
      registers,
    });
    const open = new Gauge({
      name: 'longhaul_egress_open',
      help: 'Connections of sandboxes, their requests and tunnels, and connections to upstreams that are open',
      labelNames: ['limit'],
      registers,
      collect() {
        for (const [limit, count] of Object.entries(inUse())) open.set({ limit }, count);
      },
    });
  }

  reached(limit: Capped): void {
    this.#reached.inc({ limit });
  }
}
