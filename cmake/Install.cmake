# SPDX-License-Identifier: Apache-2.0
# Where a distribution puts what is not a program: systemd unit, man pages, completions, example config.
configure_file(deploy/systemd/modelcached.service modelcached.service @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/modelcached.service DESTINATION lib/systemd/system)

foreach(section 1 5 8)
    file(GLOB pages CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/docs/man/*.${section})
    install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()

# mc_install_if_there(SOURCE DESTINATION [NAME])
function(mc_install_if_there source destination)
    file(GLOB found CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${source})
    if(found AND ARGC GREATER 2)
        install(FILES ${found} DESTINATION ${destination} RENAME ${ARGV2})
    elseif(found)
        install(FILES ${found} DESTINATION ${destination})
    endif()
endfunction()

set(completions ctl/completions)
mc_install_if_there(${completions}/cache-ctl.bash
    ${CMAKE_INSTALL_DATADIR}/bash-completion/completions cache-ctl)
mc_install_if_there(${completions}/_cache-ctl ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
mc_install_if_there(${completions}/cache-ctl.fish ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
# The configuration is the administrator's once it is there.
install(CODE "
    set(config \"${CMAKE_INSTALL_FULL_SYSCONFDIR}/modelcached\")
    if(EXISTS \"\$ENV{DESTDIR}\${config}/config.yaml\")
        message(STATUS \"Kept: \$ENV{DESTDIR}\${config}/config.yaml\")
    else()
        file(INSTALL DESTINATION \"\${config}\" TYPE FILE FILES \"${CMAKE_SOURCE_DIR}/deploy/config.yaml\")
    endif()")
mc_install_if_there(LICENSE ${CMAKE_INSTALL_DOCDIR} copyright)
