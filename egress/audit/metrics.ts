import { Counter, Gauge, type Registry } from 'prom-client';

/** Numbers of the network policy; hosts are no labels, for sandboxes choose them. */
export class PolicyMetrics {
  readonly #requests: Counter<'decision' | 'code'>;
  readonly #credentials: Counter<'kind'>;
  readonly #security: Counter<'kind'>;
  readonly #folded: Counter;

  constructor(registry: Registry, auditWaiting: () => number) {
    const registers = [registry];
    this.#requests = new Counter({
      name: 'longhaul_egress_decisions_total',
      help: 'Requests of sandboxes, by decision and code',
      labelNames: ['decision', 'code'],
      registers,
    });
    this.#credentials = new Counter({
      name: 'longhaul_egress_credential_uses_total',
      help: 'Values put into requests, by kind of credential',
      labelNames: ['kind'],
      registers,
    });
    this.#security = new Counter({
      name: 'longhaul_egress_security_events_total',
      help: 'Security events, by kind; also those beyond what is recorded a minute',
      labelNames: ['kind'],
      registers,
    });
    this.#folded = new Counter({
      name: 'longhaul_egress_refusals_counted_total',
      help: 'Refusals that were counted in a row with others',
      registers,
    });
    const waiting = new Gauge({
      name: 'longhaul_egress_audit_waiting',
      help: 'Audit rows that are not written yet',
      registers,
      collect() {
        waiting.set(auditWaiting());
      },
    });
  }

  decided(decision: 'allow' | 'deny' | 'ask', code: string): void {
    this.#requests.inc({ decision, code });
  }

  used(kind: string): void {
    this.#credentials.inc({ kind });
  }

  folded(): void {
    this.#folded.inc();
  }

  security(kind: string): void {
    this.#security.inc({ kind });
  }
}
