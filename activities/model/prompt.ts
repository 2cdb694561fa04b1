import type { AgentDefinition, ContentBlock } from '../../contracts/definitions.ts';
import type { Queryable } from '../../db/pool.ts';
import type { EffectRow } from '../../db/queries/effects.ts';
import { listEffects } from '../../db/queries/effects.ts';
import type { AssistantBlock } from '../../db/queries/turns.ts';
import { readConversation } from '../../db/queries/turns.ts';
import type { ToolDefinition } from './tools.ts';
import { toolDefinitions } from './tools.ts';

export type PromptMessage =
  { role: 'user'; content: (ContentBlock | ToolResultBlock)[] } | { role: 'assistant'; content: AssistantBlock[] };

export interface ToolResultBlock {
  type: 'tool_result';
  tool_use_id: string;
  content: ContentBlock[];
  is_error: boolean;
}

/** Independent of the provider's protocol. Static parts (tools, system) come before dynamic ones (messages). */
export interface Prompt {
  tools: ToolDefinition[];
  system: string;
  /** Named here, with their text in `system`: which of them, and which version. */
  skills: AgentDefinition['skills'];
  messages: PromptMessage[];
}

const WORKSPACE_NOTE =
  'Your tools run in an isolated sandbox without network access unless the environment allows it. Files under /workspace are kept for the whole session.';

/** The prompt of the next step, from the record alone: any worker builds the same one. */
export async function buildPrompt(db: Queryable, sessionId: string, agent: AgentDefinition): Promise<Prompt> {
  const [conversation, effects] = await Promise.all([readConversation(db, sessionId), listEffects(db, sessionId)]);
  const tools = toolDefinitions(agent);
  const hasHands = tools.some((tool) => tool.name === 'bash' || tool.name === 'read' || tool.name === 'write');
  const byStep = groupByStep(effects);
  const messages: PromptMessage[] = [];
  const turns = new Set([...conversation.users, ...conversation.steps].map((row) => row.turn));
  for (const turn of [...turns].sort((a, b) => a - b)) {
    for (const user of conversation.users.filter((row) => row.turn === turn)) {
      messages.push({ role: 'user', content: user.content });
    }
    for (const step of conversation.steps.filter((row) => row.turn === turn)) {
      if (step.content.length > 0) messages.push({ role: 'assistant', content: step.content });
      const results = (byStep.get(`${turn}/${step.step}`) ?? []).map(toolResult);
      if (results.length > 0) messages.push({ role: 'user', content: results });
    }
  }
  return {
    tools,
    system: [agent.system ?? '', hasHands ? WORKSPACE_NOTE : ''].filter((part) => part !== '').join('\n\n'),
    skills: agent.skills,
    messages: mergeNeighbours(messages),
  };
}

function groupByStep(effects: EffectRow[]): Map<string, EffectRow[]> {
  const groups = new Map<string, EffectRow[]>();
  for (const effect of effects) {
    const key = `${effect.turn}/${effect.step}`;
    groups.set(key, [...(groups.get(key) ?? []), effect]);
  }
  return groups;
}

/** Every call the model made gets a result; one that never ended says so instead of vanishing. */
function toolResult(effect: EffectRow): ToolResultBlock {
  const ended = effect.state === 'succeeded' || effect.state === 'failed' || effect.state === 'denied';
  const content = ended ? (effect.result?.content ?? []) : [];
  return {
    type: 'tool_result',
    tool_use_id: effect.toolUseId,
    content:
      content.length > 0 ? content : [{ type: 'text', text: ended ? '(no output)' : 'The call was interrupted.' }],
    is_error: ended ? (effect.isError ?? false) : true,
  };
}

/** Providers want roles to alternate: messages sent while the agent was interrupted join their neighbour. */
function mergeNeighbours(messages: PromptMessage[]): PromptMessage[] {
  const merged: PromptMessage[] = [];
  for (const message of messages) {
    const last = merged.at(-1);
    if (last?.role === 'user' && message.role === 'user') last.content = [...last.content, ...message.content];
    else if (last?.role === 'assistant' && message.role === 'assistant') {
      last.content = [...last.content, ...message.content];
    } else merged.push({ ...message });
  }
  return merged;
}
