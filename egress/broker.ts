import type { Registry } from 'prom-client';
import { LonghaulError } from '../contracts/error-codes.ts';
import type { Logger } from '../telemetry/logger.ts';
import type { EgressAccess } from './client.ts';
import type { EgressConfig } from './config.ts';
import type { ControlTarget, EgressPoint } from './control.ts';
import type { EgressPolicies } from './decision.ts';

export interface BrokerOptions {
  config: EgressConfig;
  policies: EgressPolicies;
  logger: Logger;
  registry: Registry;
}

/** All sandboxes that may go out through this process. */
export class Broker implements ControlTarget {
  readonly #options: BrokerOptions;

  constructor(options: BrokerOptions) {
    this.#options = options;
  }

  async attach(sandboxId: string, _sessionId: string, _point: EgressPoint | null): Promise<EgressAccess> {
    throw new LonghaulError('sandbox_unsupported', `the broker cannot let ${sandboxId} out yet`);
  }

  async detach(_sandboxId: string): Promise<boolean> {
    return false;
  }

  refresh(sessionId: string): Promise<void> {
    return this.#options.policies.refresh(sessionId);
  }

  revoke(sessionId: string): Promise<void> {
    return this.#options.policies.revoke(sessionId);
  }

  redact(sessionId: string, texts: string[]): Promise<{ texts: string[]; redactions: number }> {
    return this.#options.policies.redact(sessionId, texts);
  }

  caCertificate(): string {
    return '';
  }

  async metrics(): Promise<{ contentType: string; text: string }> {
    const { registry } = this.#options;
    return { contentType: registry.contentType, text: await registry.metrics() };
  }

  async close(): Promise<void> {
    await this.#options.policies.close();
  }
}
