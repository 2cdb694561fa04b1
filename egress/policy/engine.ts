import { isAddress } from '../../contracts/hosts.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { AuditEntry } from '../audit/writer.ts';
import type { Destination } from '../credentials/bindings.ts';
import { fillHead, withoutHeader } from '../credentials/fill.ts';
import type {
  Allowed,
  Denied,
  EgressTarget,
  Passthrough,
  PolicyEngine,
  Refusal,
  RequestHead,
  SandboxIdentity,
} from '../decision.ts';
import type { Answer } from './asks.ts';
import type { Decision } from './compile.ts';
import { bodyChange, responseChange } from './content.ts';
import type { Place, Recorder } from './recorder.ts';
import type { OwnService } from '../../contracts/harnesses.ts';
import type { SessionState } from './session-state.ts';
import type { Deps } from './deps.ts';
import { valuesFor } from './values-for.ts';

/** Nobody is asked about a service of our own. */
const NEVER = new AbortController().signal;

/** A request that may go on, and what let it. */
interface Admitted {
  rule: string;
  approvalId: string | null;
}

/** The policy of one sandbox. */
export class Engine implements PolicyEngine {
  readonly #deps: Deps;
  readonly #sandbox: SandboxIdentity;
  readonly #state: () => Promise<SessionState>;
  readonly #last: () => SessionState;
  readonly #recorder: Recorder;
  #isOpen = true;

  constructor(
    deps: Deps,
    sandbox: SandboxIdentity,
    recorder: Recorder,
    sources: { state: () => Promise<SessionState>; last: () => SessionState },
  ) {
    this.#deps = deps;
    this.#sandbox = sandbox;
    this.#recorder = recorder;
    this.#state = sources.state;
    this.#last = sources.last;
  }

  async connect(target: EgressTarget, signal: AbortSignal): Promise<{ action: 'terminate' } | Passthrough | Denied> {
    const place: Place = { target, method: 'CONNECT', path: null };
    return this.#unlessAway(place, () => this.#connect(place, signal));
  }

  async request(head: RequestHead, signal: AbortSignal): Promise<Allowed | Denied> {
    const place: Place = { target: head.target, method: head.method, path: head.path };
    return this.#unlessAway(place, () => this.#request(place, head, signal));
  }

  /** Without the database nothing can be decided or recorded: nothing goes out. */
  async #unlessAway<T>(place: Place, decide: () => Promise<T | Denied>): Promise<T | Denied> {
    try {
      return await decide();
    } catch (error) {
      const { sandboxId } = this.#sandbox;
      this.#deps.logger.error(
        { err: error, sandboxId, host: place.target.host },
        'a request of a sandbox is not decided',
      );
      const message = 'the request cannot be decided or recorded now; try again later';
      return this.#recorder.deny(this.#last(), place, {
        status: 503,
        code: 'policy_unavailable',
        rule: 'broker',
        message,
      });
    }
  }

  async #connect(place: Place, signal: AbortSignal): Promise<{ action: 'terminate' } | Passthrough | Denied> {
    const { target } = place;
    const state = await this.#state();
    const { policy } = state;
    const isInternal = policy.isInternal(target.host, target.port);
    if (!policy.isPassthrough(target.host) || isInternal) {
      const decision = policy.decide({ host: target.host, port: target.port, method: 'GET', path: '/' });
      // A name gets its refusal inside the tunnel, where clients show it; an address is nobody's to be impersonated.
      if (!isAddress(target.host) || decision.action !== 'deny') return { action: 'terminate' };
    }
    const admitted = await this.#admit(state, place, policy.decideTunnel(target.host, target.port), signal);
    if ('action' in admitted) return admitted;
    const entry = this.#recorder.start(state, place, admitted);
    await this.#deps.writer.durable(entry);
    return {
      action: 'passthrough',
      limits: { requestBodyBytes: Number.MAX_SAFE_INTEGER, responseBodyBytes: LIMITS.egressResponseBytes },
      record: (outcome) => this.#recorder.end(state, entry, outcome),
    };
  }

  async #request(place: Place, head: RequestHead, signal: AbortSignal): Promise<Allowed | Denied> {
    const state = await this.#state();
    const { target, method, path } = head;
    const service = this.#deps.services.named(target);
    if (service !== undefined) return this.#service(state, place, head, service);
    const to: Destination = { host: target.host, method, path, isConfidential: isConfidential(state, target) };
    const placed = await this.#deps.watch.look(head, to, state.credentials);
    const decision = state.policy.decide({ host: target.host, port: target.port, method, path });
    if ('misuse' in placed) return this.#recorder.misuse(state, place, placed.misuse);
    const admitted = await this.#admit(state, place, decision, signal);
    if ('action' in admitted) return admitted;
    const values = await valuesFor(state, placed.used, head, to);
    if ('code' in values) return this.#recorder.deny(state, place, { ...values, rule: admitted.rule });
    const entry = this.#recorder.start(state, place, admitted, values);
    // What carries a secret is on disk before a byte of it leaves: a broker that dies here leaves a trace.
    if (values.names.length > 0) await this.#deps.writer.durable(entry);
    return this.#allow(state, entry, head, to, values);
  }

  /** A harness inside asks the gateway or calls our tools: under the key of its session, whatever the rules say of hosts. */
  async #service(state: SessionState, place: Place, head: RequestHead, service: OwnService): Promise<Allowed | Denied> {
    const rule = `service: ${service}`;
    const { session } = state;
    if (session === null) {
      const message = `${place.target.host} is for harnesses of sessions`;
      return this.#recorder.deny(state, place, { status: 403, code: 'host_not_allowed', rule, message });
    }
    const message = this.#deps.services.refusal(service, session, head);
    if (message !== undefined) {
      return this.#recorder.deny(state, place, { status: 403, code: 'host_not_allowed', rule, message });
    }
    const decision: Decision = { action: 'allow', rule, subject: place.target.host, isInternal: true };
    const admitted = await this.#admit(state, place, decision, NEVER);
    if ('action' in admitted) return admitted;
    const addressed = await this.#deps.services.addressed(service, session, head);
    const entry = this.#recorder.start(state, place, admitted, { names: [], kinds: [] });
    await this.#deps.writer.durable(entry);
    return {
      action: 'allow',
      head: addressed,
      limits: { requestBodyBytes: LIMITS.egressRequestBytes, responseBodyBytes: LIMITS.egressResponseBytes },
      record: (outcome) => this.#recorder.end(state, entry, outcome),
    };
  }

  #allow(
    state: SessionState,
    entry: AuditEntry,
    head: RequestHead,
    to: Destination,
    values: Extract<Awaited<ReturnType<typeof valuesFor>>, { names: string[] }>,
  ): Allowed {
    const filled = fillHead(head, values.swapped, values.injected);
    const change = bodyChange(state, filled, values.body, (credential) =>
      this.#recorder.misuseInBody(state, entry, credential, to),
    );
    const isScrubbed = !state.matcher.isEmpty && values.isKnownThere;
    const readable = isScrubbed ? withoutHeader(change.headers, 'accept-encoding') : change.headers;
    return {
      action: 'allow',
      head: { ...filled, headers: readable },
      ...(change.body === undefined ? {} : { requestBody: change.body }),
      ...(isScrubbed ? { response: responseChange(state, head.method) } : {}),
      limits: {
        requestBodyBytes: Math.min(state.policy.maxRequestBytes, change.maxBytes),
        responseBodyBytes: LIMITS.egressResponseBytes,
      },
      record: (outcome) => {
        if (outcome.status === 401) state.refused([...values.swapped, ...values.injected].map((one) => one.credential));
        this.#recorder.end(state, entry, outcome);
      },
    };
  }

  addressAllowed(address: string, target: EgressTarget): boolean {
    const { policy } = this.#last();
    if (target.via !== undefined) return true;
    return policy.isInternal(target.host, target.port) || policy.open.includes(address, target.host);
  }

  addressDenied(address: string, target: EgressTarget): boolean {
    return this.#last().policy.isDeniedAddress(address, target.host);
  }

  refused(refusal: Refusal): void {
    this.#recorder.refused(this.#last(), refusal);
  }

  dispose(): void {
    this.#isOpen = false;
  }

  /** What holds for tunnels and requests alike: the session lives, has not asked too much, and the rules or a person agree. */
  async #admit(state: SessionState, place: Place, decision: Decision, signal: AbortSignal): Promise<Admitted | Denied> {
    const deny = (status: Denied['status'], code: string, rule: string, message: string): Denied =>
      this.#recorder.deny(state, place, { status, code, rule, message });
    if (!this.#isOpen || state.isOver)
      return deny(403, 'session_over', 'session', 'the session of this sandbox has ended');
    if (this.#deps.writer.isFull)
      return deny(503, 'audit_unavailable', 'audit', 'requests cannot be recorded now; try again later');
    state.requests += 1;
    if (state.requests > state.policy.maxRequests) {
      return deny(
        429,
        'too_many_requests',
        'max_requests',
        `this session may make ${state.policy.maxRequests} requests, and has`,
      );
    }
    switch (decision.action) {
      case 'allow':
        return { rule: decision.rule, approvalId: null };
      case 'deny':
        return deny(
          403,
          decision.rule === 'unmatched' ? 'host_not_allowed' : 'rule_denied',
          decision.rule,
          explainDenial(place, decision.rule, state.policy.remedy),
        );
      case 'ambiguous':
        return this.#recorder.ambiguous(state, place);
      case 'ask':
        return this.#ask(state, place, decision, signal);
    }
  }

  async #ask(
    state: SessionState,
    place: Place,
    decision: Extract<Decision, { subject: string }>,
    signal: AbortSignal,
  ): Promise<Admitted | Denied> {
    const { target, method, path } = place;
    const { rule, subject } = decision;
    const answer: Answer = await this.#deps.asks.ask(
      state,
      this.#sandbox,
      { target, method, path, subject, rule },
      signal,
    );
    if (answer.action === 'allow') return { rule, approvalId: answer.approvalId };
    const { code, message, approvalId } = answer;
    return this.#recorder.deny(state, place, { status: 403, code, message, rule, approvalId, decision: 'ask' });
  }
}

/** Encrypted, or inside of what the environment itself opened. */
function isConfidential(state: SessionState, target: EgressTarget): boolean {
  return target.isTls || state.policy.open.includes(target.host, target.host);
}

function explainDenial(place: Place, rule: string, remedy: string): string {
  const { host, port } = place.target;
  if (rule === 'unmatched') {
    return `${host}:${port} ${remedy}`;
  }
  return `${place.method} ${host}${place.path ?? ''} is denied by ${rule}. Whoever owns the rule can change it.`;
}
