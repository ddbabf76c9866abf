# shellcheck shell=bash source-path=SCRIPTDIR
# What looks at the dashboard in a real browser. Sourced, never run.

# ensure_browser: chromium, and tests/browser with its packages in $BROWSER_TOOLS; unless $ANDON_TEST_BROWSER says where they are.
BROWSER_TOOLS=${ANDON_TEST_BROWSER:-$ANDON_CI_DIR/browser}
ensure_browser() {
  if [[ -n ${ANDON_TEST_BROWSER:-} ]]; then return 0; fi
  ensure_commands node=nodejs npm=npm chromium=chromium
  # Widths are measured with it.
  ensure_packages fonts-dejavu-core
  mkdir -p "$BROWSER_TOOLS"
  cp "$ANDON_ROOT"/tests/browser/*.{json,mjs} "$BROWSER_TOOLS/"
  quietly "$BROWSER_TOOLS/npm.log" npm --prefix "$BROWSER_TOOLS" ci --ignore-scripts --no-audit --no-fund
}
