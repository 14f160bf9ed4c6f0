# Runs the suite's own test_helper.tcl with the nodes of the shard kept alike.
#
# Settings of the server are no data: they are not replicated, and whoever runs a shard configures its
# nodes alike. Tests change settings through their client, which reaches the master of that moment.
# So what they set is set on every node (SWITCHING_NODES), before it is sent where they send it.

set helper [open tests/test_helper.tcl]
set text [read $helper]
close $helper
# The helper starts itself once more with [info script], which is this file when it is evaluated here.
# What it sources comes first; ours goes between that and the rest.
set cut [string first "set ::all_tests" $text]
eval [string range $text 0 [expr {$cut - 1}]]

set ::nodes [split $::env(SWITCHING_NODES)]
array set ::node_client {}

# Subcommands of DEBUG that are settings.
set ::debug_settings {set-active-expire quicklist-packed-threshold set-disable-deny-scripts pause-cron}

proc is_setting {method argv} {
    set first [string tolower [lindex $argv 0]]
    switch -- [string tolower $method] {
        config {return [expr {$first eq "set"}]}
        debug {return [expr {$first in $::debug_settings}]}
    }
    return 0
}

proc ask_node {node method args} {
    if {![info exists ::node_client($node)]} {
        lassign [split $node :] host port
        set ::node_client($node) [regexp -inline {\d+$} [redis $host $port]]
    }
    ::redis::dispatch_raw $::node_client($node) $method $args
}

# A setting that a node refuses is refused by the one that the test asks, too.
proc set_on_every_node {words} {
    foreach node $::nodes {
        catch {ask_node $node {*}$words}
    }
    if {[lindex $words 2] eq "appendonly"} {
        wait_for_aof
    }
}

# A file that is being rewritten is not to be loaded: the test waits for that where its client is
# connected, and whoever is master by then has to be done with it, also after a full resync.
proc wait_for_aof {} {
    foreach node $::nodes {
        while {[regexp {aof_rewrite_(in_progress|scheduled):1} [ask_node $node info persistence]]} {
            after 10
        }
    }
}

rename ::redis::__dispatch__raw__ ::redis::dispatch_raw
proc ::redis::__dispatch__raw__ {id method argv} {
    if {[is_setting $method $argv]} {
        set_on_every_node [list $method {*}$argv]
    }
    if {[string equal -nocase "$method [lindex $argv 0]" "debug loadaof"]} {
        wait_for_aof
    }
    uplevel 1 [list ::redis::dispatch_raw $id $method $argv]
}

eval [string range $text $cut end]
