/** The offline model of development and tests. */
export const SCRIPTED_MODEL = 'scripted';

/** A model in both vendors' list shapes. */
export function describeModel({
  id,
  provider,
}: {
  id: string;
  provider: string;
}): Record<string, unknown> & { id: string } {
  const label = provider === 'scripted' ? 'Scripted (offline, for development and tests)' : id;
  return {
    id,
    type: 'model',
    object: 'model',
    display_name: label,
    created_at: '1970-01-01T00:00:00Z',
    created: 0,
    owned_by: provider,
  };
}

/** A model in the shape of Google's list. */
export function describeGeminiModel({ id }: { id: string }): { name: string } & Record<string, unknown> {
  return {
    name: `models/${id}`,
    version: '1',
    displayName: id,
    supportedGenerationMethods: ['generateContent', 'countTokens'],
  };
}
