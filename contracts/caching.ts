/** Zod-free. Prompt caching at the providers: where breakpoints go, and from which size on a prefix is cached at all. */

/** How long a provider keeps a cached prefix after its last use. */
export type PromptCacheTtl = '5m' | '1h';

/** `AgentDefinition.prompt_caching`, and what a key may say. */
export type PromptCaching = { type: 'auto'; ttl: PromptCacheTtl } | { type: 'off' };

/** What the built-in loop does, and what `"auto"` means. */
export const DEFAULT_PROMPT_CACHING: PromptCaching = { type: 'auto', ttl: '5m' };

/** How long an answer may be given again; `default` follows the installation's environment. */
export type ResponseCacheTtl = '5m' | '1h' | '24h' | 'default';

/** `AgentDefinition.response_cache`, and what a key may say. */
export interface ResponseCaching {
  ttl: ResponseCacheTtl;
  /** Also answers that call tools; off unless the agent says that repeating a decision is right for it. */
  tool_calls: boolean;
}

/** What a key's `cache` column holds: what its calls may ask for beyond the agent's own settings. */
export interface KeyCaching {
  prompt_caching?: PromptCaching;
  response_cache?: ResponseCaching;
}

/** Header with which the built-in loop tells the gateway about its static prefix: the gateway does not parse it. */
export const PROMPT_PREFIX_HEADER = 'x-longhaul-prompt-prefix';

/** Fewest tokens a provider caches; a shorter prefix is silently not cached. First match counts. */
const MINIMUM_TOKENS: readonly (readonly [RegExp, number])[] = [
  [/^claude-(opus|fable|mythos)-5$/, 512],
  [/^claude-sonnet-(5|4-\d|4)$/, 1_024],
  [/^claude-opus-(4-8|4-1|4-0|4)$/, 1_024],
  [/^claude-opus-4-7$/, 2_048],
  [/^claude-opus-4-[56]$/, 4_096],
  [/^claude-haiku-4-5$/, 4_096],
  [/^(gpt-|o\d|gemini-)/, 1_024],
];

/** Smallest prefix the model's provider caches; undefined where nothing is known. */
export function promptCacheMinimumTokens(model: string): number | undefined {
  const name = model.replace(/^[a-z]+\//, '').replace(/[-@](\d{8}|\d{4}-\d{2}-\d{2})$/, '');
  return MINIMUM_TOKENS.find(([pattern]) => pattern.test(name))?.[1];
}

type Json = Record<string, unknown>;
type Section = 'tools' | 'system' | 'messages';

/** A block of a Messages request, in the order in which the provider sees them. */
interface Block {
  section: Section;
  /** Of the tool, the system block or the message. */
  index: number;
  /** Of the block in its message. */
  part: number;
  order: number;
  value: Json;
}

interface Marker {
  order: number;
  ttl: PromptCacheTtl;
}

/** The provider's limit for one request. */
const MAX_BREAKPOINTS = 4;

/**
 * Adds cache breakpoints to a Messages request, at most four with those it has: behind the tools, behind system prompt
 * and skills, behind what follows them in the system prompt (memory), behind the newest message, and where one is left behind
 * the user message before it: a step with many blocks would otherwise lie beyond the provider's look-back. A longer-lived
 * breakpoint never follows a shorter-lived one. Everything the caller set stays; the same object comes back when nothing is added.
 */
export function placeBreakpoints<T extends Json>(request: T, ttl: PromptCacheTtl): T {
  const { blocks, marked } = survey(request);
  const placed: { block: Block; ttl: PromptCacheTtl }[] = [];
  for (const { block, wanted } of candidates(request, blocks, ttl)) {
    if (marked.length >= MAX_BREAKPOINTS) break;
    const allowed = ttlAt(block.order, wanted, marked);
    if (block.value['cache_control'] !== undefined || allowed === undefined) continue;
    marked.push({ order: block.order, ttl: allowed });
    placed.push({ block, ttl: allowed });
  }
  return placed.length === 0 ? request : withMarkers(request, placed);
}

/** Undefined: no lifetime would keep the longer-lived ones first. */
function ttlAt(order: number, wanted: PromptCacheTtl, marked: readonly Marker[]): PromptCacheTtl | undefined {
  const longFollows = marked.some((marker) => marker.order > order && marker.ttl === '1h');
  const shortPrecedes = marked.some((marker) => marker.order < order && marker.ttl === '5m');
  if (longFollows) return shortPrecedes ? undefined : '1h';
  return shortPrecedes ? '5m' : wanted;
}

function survey(request: Json): { blocks: Block[]; marked: Marker[] } {
  const blocks: Block[] = [];
  const marked: Marker[] = [];
  let order = 0;
  const mark = (value: Json): void => {
    const control = value['cache_control'];
    if (isObject(control)) marked.push({ order, ttl: control['ttl'] === '1h' ? '1h' : '5m' });
  };
  const visit = (section: Section, index: number, part: number, value: Json): void => {
    for (const inner of listOf(value['content'])) {
      mark(inner);
      order += 1;
    }
    mark(value);
    blocks.push({ section, index, part, order, value });
    order += 1;
  };
  for (const [index, tool] of listOf(request['tools']).entries()) visit('tools', index, 0, tool);
  for (const [index, block] of textBlocks(request['system']).entries()) visit('system', index, 0, block);
  for (const [index, message] of listOf(request['messages']).entries()) {
    for (const [part, block] of textBlocks(message['content']).entries()) visit('messages', index, part, block);
  }
  // The provider's own automatic breakpoint is at the end and takes one of the four.
  mark(request);
  return { blocks, marked };
}

function candidates(
  request: Json,
  blocks: readonly Block[],
  ttl: PromptCacheTtl,
): { block: Block; wanted: PromptCacheTtl }[] {
  const usable = blocks.filter((block) => isCacheable(block.value));
  const system = usable.filter((block) => block.section === 'system');
  const memory = system.length > 1 ? system.at(-1) : undefined;
  const messages = listOf(request['messages']);
  const newest = isObject(request['cache_control']) ? undefined : messages.length - 1;
  const earlier = messages.findLastIndex((message, index) => index < messages.length - 1 && message['role'] === 'user');
  const endOf = (message: number | undefined): Block | undefined =>
    usable.findLast((block) => block.section === 'messages' && block.index === message);
  const wanted: [Block | undefined, PromptCacheTtl][] = [
    [usable.findLast((block) => block.section === 'tools'), ttl],
    [memory === undefined ? system[0] : system.at(-2), ttl],
    [memory, ttl],
    [endOf(newest), '5m'],
    [endOf(earlier), '5m'],
  ];
  return wanted.flatMap(([block, life]) => (block === undefined ? [] : [{ block, wanted: life }]));
}

/** Providers refuse a breakpoint on thoughts, empty text and tools that are loaded later. */
function isCacheable(block: Json): boolean {
  const type = block['type'];
  if (type === 'thinking' || type === 'redacted_thinking' || block['defer_loading'] === true) return false;
  return type !== 'text' || (typeof block['text'] === 'string' && block['text'] !== '');
}

function withMarkers<T extends Json>(request: T, placed: readonly { block: Block; ttl: PromptCacheTtl }[]): T {
  const tools = [...listOf(request['tools'])];
  const system = [...textBlocks(request['system'])];
  const messages = [...listOf(request['messages'])];
  for (const { block, ttl } of placed) {
    const value = {
      ...block.value,
      cache_control: ttl === '1h' ? { type: 'ephemeral', ttl } : { type: 'ephemeral' },
    };
    if (block.section === 'tools') tools[block.index] = value;
    else if (block.section === 'system') system[block.index] = value;
    else {
      const message = messages[block.index] ?? {};
      messages[block.index] = { ...message, content: textBlocks(message['content']).with(block.part, value) };
    }
  }
  const has = (section: Section): boolean => placed.some(({ block }) => block.section === section);
  return {
    ...request,
    ...(has('tools') ? { tools } : {}),
    ...(has('system') ? { system } : {}),
    ...(has('messages') ? { messages } : {}),
  };
}

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The entries of a list that are objects; anything else is the provider's to refuse. */
function listOf(value: unknown): Json[] {
  return Array.isArray(value) && value.every(isObject) ? value : [];
}

/** Plain text is one text block: the protocol takes either. */
function textBlocks(value: unknown): Json[] {
  return typeof value === 'string' ? [{ type: 'text', text: value }] : listOf(value);
}
