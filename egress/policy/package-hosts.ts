/** Where the usual package managers load from. Replaced as a whole by `LONGHAUL_EGRESS_PACKAGE_HOSTS`. */
export const PACKAGE_HOSTS: readonly string[] = [
  // npm, yarn
  'registry.npmjs.org',
  'registry.yarnpkg.com',
  'nodejs.org',
  // Python
  'pypi.org',
  'files.pythonhosted.org',
  // Rust
  'crates.io',
  'static.crates.io',
  'index.crates.io',
  'static.rust-lang.org',
  // Go
  'proxy.golang.org',
  'sum.golang.org',
  // Ruby
  'rubygems.org',
  'index.rubygems.org',
  // Debian and Ubuntu
  'deb.debian.org',
  'security.debian.org',
  'archive.ubuntu.com',
  'security.ubuntu.com',
  'ports.ubuntu.com',
  // Maven
  'repo.maven.apache.org',
  'repo1.maven.org',
];
