import type { AgentDefinition } from '../../contracts/definitions.ts';
import type { ApprovalRow } from '../../db/queries/approvals.ts';
import type { TurnView } from '../../db/queries/opencode-turns.ts';
import type { UsageSum } from '../../db/queries/usage.ts';
import type { Conversation, Held, HeldAssistant } from './conversation.ts';
import { messageId, partId } from './ids.ts';
import { permissionOf, shownInput } from './tools.ts';
import type { AssistantInfo, Message, Part, PermissionRequest, Tokens, UserInfo } from './wire.ts';
import { DIRECTORY, PROVIDER_ID } from './wire.ts';

const MICROS_PER_DOLLAR = 1_000_000;

/** What of a session stands in its messages. */
export interface About {
  sessionId: string;
  agent: AgentDefinition;
}

/** A message with what the ledger says of its turn. */
export function renderMessage(about: About, held: Held, turns: readonly TurnView[]): Message {
  if (held.role === 'user') return { info: userInfo(about, held), parts: held.parts };
  const info = assistantInfo(about, held, turns);
  return { info, parts: [...held.parts, ...finishPart(held, info)] };
}

export function renderInfo(about: About, held: Held, turns: readonly TurnView[]): UserInfo | AssistantInfo {
  return held.role === 'user' ? userInfo(about, held) : assistantInfo(about, held, turns);
}

function userInfo({ sessionId, agent }: About, held: Extract<Held, { role: 'user' }>): UserInfo {
  return {
    id: held.id,
    sessionID: sessionId,
    role: 'user',
    time: { created: held.createdMs },
    agent: agent.name,
    model: { providerID: PROVIDER_ID, modelID: held.model ?? agent.model.id },
  };
}

function assistantInfo({ sessionId, agent }: About, held: HeldAssistant, turns: readonly TurnView[]): AssistantInfo {
  const turn = turns.find((view) => view.endSeq === null || view.endSeq > held.seq);
  const { end } = held;
  return {
    id: held.id,
    sessionID: sessionId,
    role: 'assistant',
    time: { created: held.createdMs, ...(end === undefined ? {} : { completed: end.atMs }) },
    parentID: parentOf(sessionId, turn),
    modelID: turn === undefined || turn.model === 'none' ? agent.model.id : turn.model,
    providerID: PROVIDER_ID,
    mode: agent.name,
    agent: agent.name,
    path: { cwd: DIRECTORY, root: DIRECTORY },
    cost: (turn?.costMicros ?? 0) / MICROS_PER_DOLLAR,
    tokens: turn === undefined ? NO_TOKENS : tokensOf(turn),
    ...(end === undefined ? {} : { finish: end.finish }),
    ...(end?.error === undefined ? {} : { error: end.error }),
  };
}

function parentOf(sessionId: string, turn: TurnView | undefined): string {
  const seq = turn?.lastInputSeq ?? null;
  return seq === null ? '' : messageId(sessionId, seq);
}

const NO_TOKENS: Tokens = { input: 0, output: 0, reasoning: 0, cache: { read: 0, write: 0 } };

/** Their input leaves out what came from a cache, their output what was thought; our ledger keeps the first apart, too. */
function tokensOf(turn: TurnView): Tokens {
  return {
    input: turn.inputTokens,
    output: turn.outputTokens,
    reasoning: turn.reasoningTokens,
    cache: { read: turn.cacheReadTokens, write: turn.cacheWriteTokens },
  };
}

/** The last part of a turn that is over: it tells the cost. */
export function finishPart(held: HeldAssistant, info: UserInfo | AssistantInfo): Part[] {
  if (held.end === undefined || info.role === 'user') return [];
  const { sessionID, cost, tokens } = info;
  const id = partId(sessionID, held.end.seq, 0);
  return [{ id, sessionID, messageID: held.id, type: 'step-finish', reason: held.end.finish, cost, tokens }];
}

/** Sums of a session, in their words. */
export function renderTotals(sum: UsageSum): { cost: number; tokens: Tokens } {
  return {
    cost: (sum.costMicros ?? 0) / MICROS_PER_DOLLAR,
    tokens: {
      input: sum.inputTokens,
      output: sum.outputTokens,
      reasoning: 0,
      cache: { read: sum.cacheReadTokens, write: sum.cacheWrite5mTokens + sum.cacheWrite1hTokens },
    },
  };
}

/** An approval as the dialog of its clients. */
export function renderPermission(row: ApprovalRow, conversation: Conversation | undefined): PermissionRequest {
  const { shown } = row;
  const call = row.effectId === null ? undefined : conversation?.placeOf(row.effectId);
  const input = shownInput(shown.input);
  const pattern = input['command'] ?? input['filePath'] ?? input['url'] ?? shown.preview;
  return {
    id: row.id,
    sessionID: row.sessionId,
    permission: row.kind === 'effect' ? permissionOf(shown.tool) : row.kind,
    patterns: [(typeof pattern === 'string' ? pattern : shown.tool).slice(0, 2_000)],
    metadata: {
      ...input,
      ...(typeof input['filePath'] === 'string' ? { filepath: input['filePath'], diff: shown.preview } : {}),
      reason: shown.reason,
      digest: row.digest,
      tool: shown.tool,
    },
    // Nothing stands for more than the one call it was asked for.
    always: [],
    ...(call === undefined ? {} : { tool: { messageID: call.messageId, callID: call.part.callID } }),
  };
}
