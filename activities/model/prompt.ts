import type { AgentDefinition, ContentBlock, EnvironmentConfig } from '../../contracts/definitions.ts';
import type { StoredSessionResource } from '../../contracts/session-resources.ts';
import type { Queryable } from '../../db/pool.ts';
import { LIMITS } from '../../contracts/limits.ts';
import type { Conversation, ResultRow } from '../../db/queries/conversation.ts';
import { readConversation, readOutline } from '../../db/queries/conversation.ts';
import type { AssistantBlock } from '../../db/queries/turns.ts';
import { skillsNote } from '../skills/note.ts';
import { firstKept, LEFT_OUT, SHORT_RESULT_BYTES } from './cut.ts';
import type { ToolDefinition } from '../../contracts/agent-tools.ts';
import { hasHands, toolDefinitions } from '../../contracts/agent-tools.ts';
import type { McpListing } from '../../contracts/mcp.ts';
import { PLATFORM_TOOLS, platformTools } from '../../contracts/platform-tools.ts';

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

/** What is really so, for models: of the environment and what the session began with, which are fixed, so that the prompt's beginning stays the same. */
export function workspaceNote(
  environment: EnvironmentConfig,
  reach: string,
  resources: readonly StoredSessionResource[] = [],
): string {
  const cloud = environment.type === 'cloud' ? environment : null;
  const network =
    reach === 'none'
      ? 'without network access'
      : reach === 'unrestricted'
        ? 'with access to the network through a proxy'
        : `whose network is ${reach}, through a proxy`;
  const repositories = (cloud?.repositories ?? []).map(({ url, mount_path: at }) => `${url} is in ${at}.`);
  // One that is added later is told with a result.
  const paths = resources.flatMap((resource) =>
    resource.type === 'file' && !resource.late ? [resource.mount_path] : [],
  );
  const files = paths.length === 0 ? [] : [`Files for you: ${paths.join(', ')}.`];
  return [
    `Your tools run in an isolated sandbox ${network}. Files under /workspace are kept for the whole session.`,
    ...(reach === 'none'
      ? []
      : [
          'Credentials in environment variables are placeholders: use them as they are, they work for their hosts only.',
        ]),
    ...repositories,
    ...files,
  ].join(' ');
}

/** The prompt of the next step, from the record alone: any worker builds the same one. Throws `conversation_too_long`. */
export async function buildPrompt(
  db: Queryable,
  sessionId: string,
  agent: AgentDefinition,
  note: string,
  listings: readonly McpListing[] = [],
): Promise<Prompt> {
  const shortBytes = SHORT_RESULT_BYTES;
  // Sizes first: what is too much is never loaded.
  const outline = await readOutline(db, sessionId, { shortBytes, limit: LIMITS.promptSteps + 1 });
  const conversation = await readConversation(db, sessionId, { from: firstKept(outline), shortBytes });
  return {
    tools: [...toolDefinitions(agent, listings), ...platformTools(agent).map((name) => PLATFORM_TOOLS[name])],
    system: [agent.system ?? '', hasHands(agent) ? note : '', await skillsNote(db, agent)]
      .filter((part) => part !== '')
      .join('\n\n'),
    skills: agent.skills,
    messages: mergeNeighbours(messagesOf(conversation)),
  };
}

function messagesOf({ users, steps, results }: Conversation): PromptMessage[] {
  const messages: PromptMessage[] = [];
  const usersOf = groupBy(users, (user) => user.turn);
  const stepsOf = groupBy(steps, (step) => step.turn);
  const resultsOf = groupBy(results, ({ turn, step }) => `${turn}/${step}`);
  for (const turn of [...new Set([...usersOf.keys(), ...stepsOf.keys()])].toSorted((a, b) => a - b)) {
    for (const { content } of usersOf.get(turn) ?? []) messages.push({ role: 'user', content });
    for (const { step, content } of stepsOf.get(turn) ?? []) {
      if (content.length > 0) messages.push({ role: 'assistant', content });
      const blocks = (resultsOf.get(`${turn}/${step}`) ?? []).map(toolResult);
      if (blocks.length > 0) messages.push({ role: 'user', content: blocks });
    }
  }
  return messages;
}

function groupBy<Key, Row>(rows: Row[], keyOf: (row: Row) => Key): Map<Key, Row[]> {
  const groups = new Map<Key, Row[]>();
  for (const row of rows) {
    const group = groups.get(keyOf(row));
    if (group === undefined) groups.set(keyOf(row), [row]);
    else group.push(row);
  }
  return groups;
}

/** Every call the model made gets a result; one that never ended says so instead of vanishing. */
function toolResult(result: ResultRow): ToolResultBlock {
  const ended = result.state === 'succeeded' || result.state === 'failed' || result.state === 'denied';
  return {
    type: 'tool_result',
    tool_use_id: result.toolUseId,
    content: contentOf(result, ended),
    is_error: ended ? (result.isError ?? false) : true,
  };
}

function contentOf({ content, leftOut }: ResultRow, ended: boolean): ContentBlock[] {
  if (!ended) return [{ type: 'text', text: 'The call was interrupted.' }];
  if (leftOut) return [{ type: 'text', text: LEFT_OUT }];
  return content === null || content.length === 0 ? [{ type: 'text', text: '(no output)' }] : content;
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
