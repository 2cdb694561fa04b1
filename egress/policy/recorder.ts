import type { SessionCredential } from '../../contracts/credentials.ts';
import type { EgressDecision } from '../../db/queries/egress-requests.ts';
import type { SecurityEventKind } from '../../db/queries/security-events.ts';
import type { AuditEntry } from '../audit/writer.ts';
import type { Destination } from '../credentials/bindings.ts';
import { explain, misfitOf } from '../credentials/bindings.ts';
import type { Denied, EgressTarget, Outcome, Refusal, SandboxIdentity } from '../decision.ts';
import { EgressFailure } from '../proxy/failure.ts';
import type { Deps } from './deps.ts';
import type { Misuse } from './placeholders.ts';
import type { SessionState } from './session-state.ts';

/** What was asked for. */
export interface Place {
  target: EgressTarget;
  method: string;
  /** As sent, without query; null for a tunnel. */
  path: string | null;
}

interface Refused {
  status: Denied['status'];
  code: string;
  message: string;
  rule: string;
  approvalId?: string | null;
  decision?: EgressDecision;
}

/** What the data plane refused that does not happen by accident. */
const INCIDENTS: readonly [pattern: RegExp, kind: SecurityEventKind][] = [
  [/^address_/, 'address_refused'],
  [/misdirected|ambiguous_host/, 'host_mismatch'],
];
const PATH_CHARS = 2_048;
/** What the column takes: a tunnel may be open for a month, and one row that cannot be written would stop all. */
const DURATION_MAX_MS = 2 ** 31 - 1;

function incidentOf(code: string): SecurityEventKind | undefined {
  return INCIDENTS.find(([pattern]) => pattern.test(code))?.[1];
}

/** Writes what became of the requests of one sandbox: the audit, metrics, security events. */
export class Recorder {
  readonly #deps: Deps;
  readonly #sandbox: SandboxIdentity;

  constructor(deps: Deps, sandbox: SandboxIdentity) {
    this.#deps = deps;
    this.#sandbox = sandbox;
  }

  start(
    state: SessionState,
    place: Place,
    admitted: { rule: string; approvalId: string | null },
    used: { names: string[]; kinds: string[] } = { names: [], kinds: [] },
  ): AuditEntry {
    this.#deps.metrics.decided('allow', admitted.rule === 'internal' ? 'internal' : 'ok');
    for (const kind of used.kinds) this.#deps.metrics.used(kind);
    const { rule, approvalId } = admitted;
    return this.#write(state, place, {
      state: 'started',
      decision: 'allow',
      rule,
      code: null,
      status: null,
      credentials: used.names,
      approvalId,
    });
  }

  /** How an allowed request ended. An address that was refused only then is an incident as well. */
  end(state: SessionState, entry: AuditEntry, outcome: Outcome): void {
    const { status, bytesIn, bytesOut, durationMs, error } = outcome;
    this.#deps.writer.end(entry, {
      state: error === undefined ? 'completed' : 'failed',
      status,
      bytesIn,
      bytesOut,
      durationMs: Math.min(Math.round(durationMs), DURATION_MAX_MS),
      error: error ?? null,
    });
    const kind = error === undefined ? undefined : incidentOf(error);
    if (kind === undefined) return;
    const { host, port, isTls, method, path } = entry.row;
    const target = host === null || port === null ? null : { host, port, isTls };
    void this.#incident(state, { target, method, path }, entry, kind, `refused: ${error ?? ''}`, {});
  }

  deny(state: SessionState, place: Place, refused: Refused): Denied {
    this.#denied(state, place, refused);
    const { status, code, message } = refused;
    return { action: 'deny', status, code, message };
  }

  async misuse(state: SessionState, place: Place, misuse: Misuse): Promise<Denied> {
    const { code, message, credential, reason } = misuse;
    const entry = this.#denied(state, place, { status: 403, code, message, rule: 'placeholder' });
    await this.#incident(state, place, entry, misuse.kind, message, { credential, reason });
    return { action: 'deny', status: 403, code, message };
  }

  async ambiguous(state: SessionState, place: Place): Promise<Denied> {
    const code = 'path_ambiguous';
    const message =
      'this path can be read in two ways (encoded slashes or dots, .., empty segments), and a rule looks at paths; send it plainly';
    const entry = this.#denied(state, place, { status: 403, code, message, rule: 'path' });
    await this.#incident(state, place, entry, 'path_ambiguous', message, {});
    return { action: 'deny', status: 403, code, message };
  }

  /** The head has gone already; the error breaks the request off. */
  misuseInBody(state: SessionState, entry: AuditEntry, credential: SessionCredential, to: Destination): Error {
    const misfit = misfitOf(credential, to, 'body', null) ?? 'location';
    const message = explain(credential, misfit, to);
    const kind = misfit === 'revoked' ? 'placeholder_revoked' : 'placeholder_misused';
    this.#deps.writer.end(entry, { state: 'denied', decision: 'deny', code: kind, status: 403 });
    const place: Place = {
      target: { host: to.host, port: entry.row.port ?? 0, isTls: entry.row.isTls },
      method: to.method,
      path: to.path,
    };
    void this.#incident(state, place, entry, kind, message, { credential: credential.name, reason: misfit });
    return new EgressFailure(403, kind, message);
  }

  refused(state: SessionState, refusal: Refusal): void {
    const target = refusal.target ?? { host: null, port: null, isTls: false };
    const entry = this.#deps.writer.start({
      ...this.#identity(state),
      state: 'denied',
      decision: 'deny',
      rule: refusal.target === null ? `broker: ${printable(refusal.asked)}` : 'broker',
      code: refusal.code,
      method: refusal.method === null ? null : printable(refusal.method).slice(0, 32),
      ...target,
      path: refusal.path === null ? null : printable(refusal.path),
      status: refusal.status,
      credentials: [],
      approvalId: null,
    });
    this.#deps.metrics.decided('deny', refusal.code);
    const kind = incidentOf(refusal.code);
    if (kind === undefined) return;
    const place = { target: refusal.target, method: refusal.method, path: refusal.path };
    void this.#incident(state, place, entry, kind, `refused: ${refusal.code}`, { asked: printable(refusal.asked) });
  }

  #denied(state: SessionState, place: Place, refused: Refused): AuditEntry {
    const { status, code, rule, decision = 'deny', approvalId = null } = refused;
    this.#deps.metrics.decided(decision, code);
    return this.#write(state, place, { state: 'denied', decision, rule, code, status, credentials: [], approvalId });
  }

  #write(
    state: SessionState,
    place: Place,
    row: Pick<AuditEntry['row'], 'state' | 'decision' | 'rule' | 'code' | 'status' | 'credentials' | 'approvalId'>,
  ): AuditEntry {
    return this.#deps.writer.start({
      ...this.#identity(state),
      ...row,
      method: place.method.slice(0, 32),
      ...place.target,
      path: place.path === null ? null : printable(this.#withoutSecrets(state, place.path)),
    });
  }

  /** A path may hold a value that upstream gave and the broker missed; the audit shall not keep it. */
  #withoutSecrets(state: SessionState, path: string): string {
    return state.matcher.redact(path.slice(0, PATH_CHARS)).text;
  }

  async #incident(
    state: SessionState,
    place: { target: EgressTarget | null; method: string | null; path: string | null },
    entry: AuditEntry,
    kind: SecurityEventKind,
    message: string,
    details: Record<string, unknown>,
  ): Promise<void> {
    await this.#deps.security.record({
      ...this.#identity(state),
      kind,
      message,
      host: place.target?.host ?? null,
      egressRequestId: entry.row.id,
      details: { ...details, port: place.target?.port ?? null, method: place.method },
    });
  }

  #identity(state: SessionState): { teamId: string; sessionId: string | null; sandboxId: string } {
    return { teamId: state.teamId, sessionId: this.#sandbox.sessionId, sandboxId: this.#sandbox.sandboxId };
  }
}

/** Nothing that Postgres or a terminal minds. */
function printable(text: string): string {
  return text.slice(0, PATH_CHARS).replaceAll(/[^\u0020-\u007E]/g, '?');
}
