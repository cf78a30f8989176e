"""A pytest plugin: the last line of a run is `N passed, N failed, N skipped`, as the suites agree."""


def pytest_unconfigure(config):
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return
    count = {name: len(reporter.stats.get(name, []))
             for name in ("passed", "failed", "error", "skipped", "xfailed", "xpassed")}
    print(f"{count['passed'] + count['xpassed']} passed, {count['failed'] + count['error']} failed, "
          f"{count['skipped'] + count['xfailed']} skipped")
