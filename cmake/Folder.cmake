# SPDX-License-Identifier: Apache-2.0
# mc_folder(), mc_program(): a folder of sources becomes a static library, a main file a program.

# Compiles each proto/*.proto with protoc-c; sources in ${ret}, headers as "proto/<name>.pb-c.h".
function(mc_proto_sources ret)
    file(GLOB protos CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/proto/*.proto)
    set(out)
    if(protos)
        find_program(PROTOC_C protoc-c REQUIRED)
        file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/proto-gen/proto)
    endif()
    foreach(proto IN LISTS protos)
        cmake_path(GET proto STEM name)
        set(base ${CMAKE_BINARY_DIR}/proto-gen/proto/${name}.pb-c)
        add_custom_command(OUTPUT ${base}.c ${base}.h
            COMMAND ${PROTOC_C} -I ${CMAKE_SOURCE_DIR} --c_out=${CMAKE_BINARY_DIR}/proto-gen
                proto/${name}.proto
            DEPENDS ${proto} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} VERBATIM)
        set_source_files_properties(${base}.c PROPERTIES COMPILE_OPTIONS -w)
        list(APPEND out ${base}.c ${base}.h)
    endforeach()
    set(${ret} ${out} PARENT_SCOPE)
endfunction()

# mc_folder(NAME [DEPS folder…] [PKG pkg-config-module…] [MAIN file…]): library mc_NAME of NAME/*.c but the main
# files.  A folder without sources becomes an empty interface library.
function(mc_folder name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "DEPS;PKG;MAIN")
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${name}/*.c)
    foreach(main IN LISTS arg_MAIN)
        list(REMOVE_ITEM sources ${CMAKE_SOURCE_DIR}/${name}/${main})
    endforeach()
    if(name STREQUAL "proto")
        mc_proto_sources(generated)
        list(APPEND sources ${generated})
    endif()

    set(target mc_${name})
    set(scope PUBLIC)
    if(sources)
        add_library(${target} STATIC ${sources})
        target_compile_definitions(${target} PRIVATE
            MC_LIBEXECDIR="${CMAKE_INSTALL_FULL_LIBEXECDIR}/modelcached"
            MC_SYSCONFDIR="${CMAKE_INSTALL_FULL_SYSCONFDIR}/modelcached")
    else()
        set(scope INTERFACE)
        add_library(${target} INTERFACE)
    endif()
    target_include_directories(${target} ${scope} ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR}/gen)
    target_include_directories(${target} SYSTEM ${scope} ${CMAKE_BINARY_DIR}/proto-gen)
    foreach(dep IN LISTS arg_DEPS)
        target_link_libraries(${target} ${scope} mc_${dep})
    endforeach()
    foreach(pkg IN LISTS arg_PKG)
        pkg_check_modules(${pkg} REQUIRED QUIET IMPORTED_TARGET GLOBAL ${pkg})
        target_link_libraries(${target} ${scope} PkgConfig::${pkg})
    endforeach()
    target_link_libraries(${target} ${scope} Threads::Threads)
endfunction()

find_package(Threads REQUIRED)
add_custom_target(programs)

# mc_program(NAME FOLDER MAIN DESTINATION): a program of FOLDER/MAIN and the folder's library, when MAIN exists.
function(mc_program name folder main destination)
    file(GLOB source CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/${main})
    if(NOT source)
        return()
    endif()
    add_executable(${name} ${source})
    add_dependencies(programs ${name})
    target_link_libraries(${name} PRIVATE mc_${folder})
    target_compile_definitions(${name} PRIVATE
        MC_LIBEXECDIR="${CMAKE_INSTALL_FULL_LIBEXECDIR}/modelcached"
        MC_SYSCONFDIR="${CMAKE_INSTALL_FULL_SYSCONFDIR}/modelcached")
    install(TARGETS ${name} RUNTIME DESTINATION ${destination})
endfunction()
