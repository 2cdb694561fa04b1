import type { ServerResponse } from 'node:http';
import { promptCacheMinimumTokens } from '../../contracts/caching.ts';
import type { Pool } from '../../db/pool.ts';
import { recordPrefix, type PromptPrefix } from '../../db/queries/prompt-prefixes.ts';
import type { Logger } from '../../telemetry/logger.ts';
import type { Caller } from '../auth.ts';
import type { CacheMetrics } from './metrics.ts';
import type { CachePolicy } from './policy.ts';

interface WatchDeps {
  pool: Pool;
  logger: Logger;
  metrics: CacheMetrics;
}

/** Tells a caller why its prompt is not cached. */
const WARNING_HEADER = 'x-longhaul-cache-warning';
/** Good enough to warn by: a tokenizer of the model is not at hand. */
const BYTES_PER_TOKEN = 4;
const REMEMBERED = 10_000;

/** Watches static prefixes: that they are the same in every call of a version, and large enough to be cached at all. */
export class PrefixWatch {
  readonly #deps: WatchDeps;
  readonly #seen = new Set<string>();
  readonly #warned = new Set<string>();
  readonly #writing = new Set<Promise<void>>();

  constructor(deps: WatchDeps) {
    this.#deps = deps;
  }

  /** Looks at the prefix of one call; nothing of it is waited for. */
  look(call: { caller: Caller; policy: CachePolicy; model: string; res: ServerResponse }, prefix: PromptPrefix): void {
    const { agentId, agentVersion, keyId } = call.caller.attribution;
    this.#checkSize(call, `${agentId ?? keyId}/${agentVersion ?? 0}/${call.model}`, prefix);
    const { prefixOf } = call.policy;
    if (prefixOf === undefined) return;
    if (!remember(this.#seen, `${prefixOf.id}/${prefixOf.version}/${prefix.fingerprint}`)) return;
    const writing = this.#record(call.caller, prefixOf, prefix).finally(() => this.#writing.delete(writing));
    this.#writing.add(writing);
  }

  /** A provider that was given breakpoints in a prompt that is long enough, and did nothing with them. */
  ignored({ caller, model }: { caller: Caller; model: string }): void {
    const { agentId, agentVersion, keyId } = caller.attribution;
    const place = `${agentId ?? keyId}/${agentVersion ?? 0}/${model}`;
    this.#deps.metrics.breakpointsIgnored();
    if (!remember(this.#warned, `${place}/ignored`)) return;
    this.#deps.logger.warn({ place, model }, 'the provider caches nothing of a prompt with breakpoints');
  }

  /** Resolves when everything seen so far is recorded. */
  async settled(): Promise<void> {
    await Promise.all(this.#writing);
  }

  #checkSize(call: { model: string; res: ServerResponse }, place: string, prefix: PromptPrefix): void {
    const minimumTokens = promptCacheMinimumTokens(call.model);
    const tokens = Math.ceil(prefix.sizeBytes / BYTES_PER_TOKEN);
    if (minimumTokens === undefined || tokens >= minimumTokens) return;
    const facts = `tokens="${tokens}", minimum="${minimumTokens}"`;
    if (!call.res.headersSent) call.res.setHeader(WARNING_HEADER, `prefix_below_minimum; ${facts}`);
    this.#deps.metrics.prefixBelowMinimum();
    if (!remember(this.#warned, place)) return;
    const { model } = call;
    this.#deps.logger.warn({ place, model, tokens, minimumTokens }, 'static prefix is too short to be cached');
  }

  async #record(caller: Caller, agent: { id: string; version: number }, prefix: PromptPrefix): Promise<void> {
    const { teamId, sessionId } = caller.attribution;
    try {
      const changed = await recordPrefix(this.#deps.pool, { ...agent, teamId, sessionId }, prefix);
      if (changed === undefined) return;
      this.#deps.metrics.prefixChanged();
      const facts = { agentId: agent.id, agentVersion: agent.version, sessionId, changed };
      this.#deps.logger.warn(facts, 'static prefix of an agent version has changed');
    } catch (error) {
      // Seen again by the next call, here or elsewhere.
      this.#seen.delete(`${agent.id}/${agent.version}/${prefix.fingerprint}`);
      this.#deps.logger.warn({ err: error, agentId: agent.id }, 'a static prefix could not be recorded');
    }
  }
}

/** True when it is new; what has been forgotten is new again. */
function remember(set: Set<string>, item: string): boolean {
  if (set.has(item)) return false;
  if (set.size >= REMEMBERED) set.clear();
  set.add(item);
  return true;
}
